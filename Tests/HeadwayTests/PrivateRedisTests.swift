import Glibc
import Logging
import TestSupport
import Testing

@testable import headway

@Suite(.timeLimit(.minutes(5))) struct PrivateRedisTests {
    private let searchPath = "/usr/local/bin:/usr/bin:/bin"
    private let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    private func start(_ directory: String, program: String = "redis-server") async throws(CommandError) -> PrivateRedis {
        try await PrivateRedis.start(program: program, data: directory, searchPath: searchPath, logger: logger)
    }

    private func serverPID(_ directory: String) -> pid_t? {
        (try? TextFile.read("\(directory)/redis/redis.pid", limit: 64)).flatMap { pid_t($0.filter(\.isNumber)) }
    }

    private func withDirectory(_ body: (String) async throws -> Void) async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-redis")
        defer { removeDirectory(directory) }
        try await body(directory)
    }

    @Test func itRunsUntilItIsTold() async throws {
        try await withDirectory { directory in
            let redis = try await start(directory)
            let pid = try #require(serverPID(directory))
            #expect(kill(pid, 0) == 0)
            let running = Task { try await redis.run() }  // ended two lines below
            running.cancel()
            try await running.value
            #expect(kill(pid, 0) != 0)
        }
    }

    @Test func aKilledServerIsStartedAgain() async throws {
        try await withDirectory { directory in
            let redis = try await start(directory)
            let first = try #require(serverPID(directory))
            let running = Task { try await redis.run() }  // ended below
            kill(first, SIGKILL)
            try await eventually(within: .seconds(20), "another server") {
                guard let now = serverPID(directory), now != first else { return false }
                return kill(now, 0) == 0
            }
            running.cancel()
            try await running.value
        }
    }

    @Test func aDirectoryHasOneOwner() async throws {
        try await withDirectory { directory in
            let redis = try await start(directory)
            let error = await #expect(throws: CommandError.self) { _ = try await start(directory) }
            #expect(error?.message.contains("another `headway dev` (process \(getpid())) uses \(directory)") == true)
            let running = Task { try await redis.run() }  // ended in the next line
            running.cancel()
            try await running.value
        }
    }

    @Test func aServerLeftBehindIsEnded() async throws {
        try await withDirectory { directory in
            try Directory.make("\(directory)/redis")
            let stale = try TestSupport.ChildProcess(
                "redis-server",
                [
                    "--port", "0", "--unixsocket", "\(directory)/redis/redis.sock", "--dir", "\(directory)/redis", "--pidfile",
                    "\(directory)/redis/redis.pid",
                ]
            )
            try await eventually(within: .seconds(10), "the stale server's pid") { serverPID(directory) == stale.pid }
            let redis = try await start(directory)
            #expect(!stale.isRunning)
            let running = Task { try await redis.run() }  // ended in the next line
            running.cancel()
            try await running.value
        }
    }

    @Test func aPidThatNowIsSomebodyElsesIsLeftAlone() async throws {
        try await withDirectory { directory in
            try Directory.make("\(directory)/redis")
            let other = try TestSupport.ChildProcess("sleep", ["30"])
            let file = fopen("\(directory)/redis/redis.pid", "w")
            fputs("\(other.pid)\n", file)
            fclose(file)
            let redis = try await start(directory)
            #expect(other.isRunning)
            let running = Task { try await redis.run() }  // ended in the next line
            running.cancel()
            try await running.value
        }
    }

    @Test func whatIsMissingIsNamed() async throws {
        try await withDirectory { directory in
            let missing = await #expect(throws: CommandError.self) { _ = try await start(directory, program: "no-such-redis") }
            #expect(missing?.message.contains("apt-get install redis-server") == true)
            let long = directory + "/" + String(repeating: "x", count: 120)
            let tooLong = await #expect(throws: CommandError.self) { _ = try await start(long) }
            #expect(tooLong?.message.contains("choose a shorter --data") == true)
            let broken = await #expect(throws: CommandError.self) { _ = try await start(directory, program: "false") }
            #expect(broken?.message.contains("ended at once") == true)
        }
    }
}
