import Glibc
import TestSupport
import Testing

/// The servers that the other tests stand on.
@Suite(.timeLimit(.minutes(5)))
struct RedisServerTests {
    @Test func durableServerKeepsAcknowledgedWritesOverKillAndRestart() async throws {
        let server = try await RedisServer.start(.init(isDurable: true))
        #expect(try await server.cli("SET", "k", "v") == "OK")
        let before = server.pid
        server.kill()
        #expect(!server.isRunning)
        try await server.start()
        #expect(server.pid != before)
        #expect(try await server.cli("GET", "k") == "v")
    }

    @Test func stoppedServerLeavesNoProcessAndNoDirectory() async throws {
        var server: RedisServer? = try await RedisServer.start(.init(listensOnTCP: false, password: "s3cret"))
        let pid = try #require(server?.pid)
        let directory = try #require(server?.directory)
        #expect(try await server?.cli("PING") == "PONG")
        #expect(access(directory, F_OK) == 0)
        server = nil
        #expect(kill(pid, 0) == -1)
        #expect(access(directory, F_OK) == -1)
    }

    @Test func missingProgramIsNamed() async {
        #expect(throws: TestSupportError.self) { try ChildProcess("headway-no-such-program") }
    }

    @Test func exitsAreReported() async throws {
        #expect(try await ChildProcess("/bin/sh", ["-c", "exit 7"]).waitForExit() == .status(7))
        #expect(try await ChildProcess("/bin/sh", ["-c", "kill -TERM $$"]).waitForExit() == .signal(SIGTERM))
    }

    @Test func eventuallyGivesUpAfterItsLimit() async {
        await #expect(throws: TestSupportError.self) {
            try await eventually(within: .milliseconds(30)) { false }
        }
    }
}
