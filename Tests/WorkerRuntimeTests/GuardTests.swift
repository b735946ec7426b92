import Glibc
import TestSupport
import Testing

@testable import WorkerRuntime

/// What a generator leaves behind, and what becomes of it.
@Suite(.serialized, .timeLimit(.minutes(2))) struct GuardTests {
    private static func family(in path: String, seconds: Int) -> [String] {
        let file = "\(#filePath)".replacing("WorkerRuntimeTests/GuardTests.swift", with: "Fixtures/generators/family.py")
        return ["python3", file, path, "\(seconds)"]
    }
    private static let names = ["leader", "stubborn", "daemon", "threaded"]

    @Test func nothingOfAGeneratorOutlivesItsEnd() async throws {
        try await withTemporaryDirectory { path in
            _ = try await runScript("x", by: Self.family(in: path, seconds: 0))
            let pids = try #require(writtenPIDs(in: path, Self.names))
            #expect(!pids.contains(where: isAlive))
        }
    }

    @Test func aStopReachesWhatLeftTheGroup() async throws {
        try await withTemporaryDirectory { path in
            let task = Task { try await runScript("x", by: Self.family(in: path, seconds: 300), grace: .milliseconds(300)) }
            let pids = try await eventually(within: .seconds(30), "the family runs") { writtenPIDs(in: path, Self.names) }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(!pids.contains(where: isAlive))
        }
    }

    @Test func everyProcessGetsOneSigterm() async throws {
        try await withTemporaryDirectory { path in
            let log = EventLog()
            let script = """
                import os, signal, sys, time
                terms = []
                def count(signal, frame):
                    terms.append(signal)
                    os.write(1, b"term %d\\n" % os.getpid())
                signal.signal(signal.SIGTERM, count)
                child = os.fork()
                if child == 0 and os.fork() == 0: os.setsid()
                os.write(1, b"ready\\n")
                while not terms: time.sleep(0.02)
                # Time for a second one to come.
                time.sleep(0.3)
                """
            let task = Task { try await runScript(script, by: ["python3", "-c"], grace: .seconds(60), log: log) }
            try await eventually(within: .seconds(30), "three processes are ready") { log.lines.count { $0 == "ready" } == 3 }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            let terms = log.lines.filter { $0.hasPrefix("term") }
            #expect(terms.count == 3 && Set(terms).count == 3, "\(terms)")
        }
    }

    @Test func aGeneratorDiesWithItsGuard() async throws {
        try await withTemporaryDirectory { path in
            let script = "echo $PPID >\(path)/b; echo $$ >\(path)/a; while :; do sleep 1; done"
            let task = Task { try await failure(of: script) }
            let pids = try await eventually(within: .seconds(30), "the generator runs") { writtenPIDs(in: path) }
            kill(pids[1], SIGKILL)
            #expect(try await task.value?.code == "generator_killed")
            try await eventually(within: .seconds(20), "the generator is gone") { !isAlive(pids[0]) }
        }
        try await eventually(within: .seconds(30), "everything is reaped") { zombies() == 0 }
    }

    /// The guard has the memory, the descriptors and the signals of nobody.
    @Test func aGuardIsAlmostNothing() async throws {
        let log = EventLog()
        let script = """
            guard=/proc/$PPID
            echo "fds $(ls $guard/fd | wc -l)"; echo "name $(cat $guard/comm)"; grep -E 'Threads|SigIgn|RssAnon' $guard/status
            """
        _ = try await runScript(script, log: log)
        #expect(log.lines.contains("fds 2"), "\(log.lines)")
        #expect(log.lines.contains("name headway-guard"))
        #expect(log.lines.contains { $0.hasPrefix("Threads") && $0.hasSuffix("1") })
    }

    @Test func startsAreNotSlow() async throws {
        // Generous: the guard's start is that of a program with all its libraries. What it costs is in docs/performance.md.
        let start = ContinuousClock.now
        for _ in 0..<20 { _ = try await runScript("true", by: ["sh", "-c"]) }
        #expect(ContinuousClock.now - start < .seconds(40))
    }
}
