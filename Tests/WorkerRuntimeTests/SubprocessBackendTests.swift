import Glibc
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

@Suite(.serialized, .timeLimit(.minutes(5))) struct SubprocessBackendTests {
    @Test func progressResultAndLogLinesArrive() async throws {
        let log = EventLog()
        let script = """
            echo plain; echo oops >&2
            echo '{"stage":"shape_generation","step":1,"steps":2}' >&3
            sleep 0.1
            echo '{"stage":"shape_generation","step":2}' >&3
            echo '{"log":"on purpose"}' >&3
            printf '{"result":{"vertices": 12}}' >&3
            """
        let result = try await runScript(script, log: log)
        #expect(result.resultJSON == #"{"vertices": 12}"#)
        #expect(log.updates.last?.step == 2)
        #expect(log.updates.allSatisfy { $0.stage == "shape_generation" })
        #expect(
            Set(log.all.filter { if case .log = $0 { true } else { false } }) == [
                .log(stream: "stdout", text: "plain"), .log(stream: "stderr", text: "oops"), .log(stream: "script", text: "on purpose"),
            ]
        )
    }

    @Test func theJobComesOnStdinAndInTheEnvironment() async throws {
        let script = """
            import json, os, sys
            job = json.load(sys.stdin)
            progress = os.fdopen(int(os.environ["HEADWAY_PROGRESS_FD"]), "w")
            job["env"] = {k: v for k, v in os.environ.items() if k.startswith(("HEADWAY_", "TQDM_"))}
            job["fds"] = sorted(int(n) for n in os.listdir("/proc/self/fd"))[:4]
            job["count"] = len(os.listdir("/proc/self/fd"))
            job["group"] = os.getpgrp() == os.getpid()
            print(json.dumps({"result": job}), file=progress)
            """
        let params = #"{"text":"\#(String(repeating: "x", count: 200_000))"}"#
        let log = EventLog()
        // Given, not set: the environment of this process is also that of every other test's children.
        let secret = ["HEADWAY_REDIS": "redis://:secret@host"]
        var result = try await runScript(script, by: ["python3", "-c"], params: #"{"a":1}"#, adding: secret, log: log)
        let text = try #require(result.resultJSON)
        for part in [
            #""job": "job-1""#, #""attempt": 2"#, #""params": {"a": 1}"#, #""HEADWAY_JOB_ID": "job-1""#, #""HEADWAY_PROGRESS_FD": "3""#,
            #""TQDM_NCOLS": "120""#, #""fds": [0, 1, 2, 3]"#, #""count": 5"#, #""group": true"#,
        ] {
            #expect(text.contains(part), "\(part) in \(text)")
        }
        #expect(!text.contains("secret"))
        // More than a pipe holds, to a generator that reads late, and to one that never does.
        result = try await runScript("sleep 0.2; wc -c | sed 's/.*/{\"result\":{\"n\":&}}/' >&3", params: params)
        #expect(result.resultJSON?.contains("200") == true)
        _ = try await runScript("exec <&-; sleep 0.1", params: params)
    }

    @Test func anExitStatusFailsWithTheLastLineOfStderr() async throws {
        let error = try await failure(of: "echo first >&2; echo 'CUDA out of memory' >&2; exit 3")
        #expect(
            error
                == BackendError(
                    code: "generator_failed",
                    message: "the generator exited with status 3: CUDA out of memory",
                    isRecoverable: true
                )
        )
    }

    @Test func aSignalDeathIsItsOwnError() async throws {
        let error = try await failure(of: "kill -9 $$")
        #expect(error == BackendError(code: "generator_killed", message: "the generator was ended by signal 9", isRecoverable: true))
        #expect(try await failure(of: "kill -SEGV $$")?.code == "generator_killed")
    }

    @Test func theScriptsOwnErrorWins() async throws {
        let error = try await failure(
            of: #"echo '{"error":{"code":"bad_image","message":"not an image","recoverable":false}}' >&3; exit 1"#
        )
        #expect(error == BackendError(code: "bad_image", message: "not an image", isRecoverable: false))
    }

    @Test func aProgramThatIsNotThereIsNamed() async throws {
        for command in [["no-such-generator"], ["/no/such/generator"], ["/etc/passwd"], ["/tmp"], [""], [], ["sh", "a\0b"]] {
            let job = BackendJob(id: JobID("j")!, attempt: 1, pipeline: "p", paramsJSON: "{}", inputDirectory: "/", outputDirectory: "/")
            await #expect(throws: BackendError.self, "\(command)") {
                _ = try await SubprocessBackend(command: command).run(job: job, events: EventLog().events)
            }
            do {
                try SubprocessBackend(command: command).check()
                Issue.record("\(command) passed the check")
            } catch {
                #expect(error.code == "generator_not_found")
                #expect(!error.isRecoverable)
            }
        }
    }

    @Test func aScriptWithAMissingInterpreterIsNamed() async throws {
        try await withTemporaryDirectory { path in
            let script = path + "/gen"
            let file = try #require(fopen(script, "w"))
            fputs("#!/no/such/interpreter\n", file)
            fclose(file)
            chmod(script, 0o755)
            #expect(try await failure(of: "x", by: [script])?.code == "generator_not_found")
        }
    }

    @Test func garbageIsCountedShownABitAndNeverFatal() async throws {
        let log = EventLog()
        let script = """
            import os, sys
            f = os.fdopen(3, "wb", buffering=0)
            for i in range(50): f.write(b"garbage %d\\n" % i)
            f.write(b'{"step":NaN}\\n\\xff\\xfe\\n\\x00\\n[1]\\n')
            f.write(b'{"log":"' + b"x" * 200000 + b'"}\\n')
            f.write(b'{"step":1,"steps":4}\\n{"step":2,')
            f.write(b'"steps":4}')
            """
        _ = try await runScript(script, by: ["python3", "-c"], log: log)
        #expect(log.updates.last?.step == 2)
        #expect(log.lines.count { $0.hasPrefix("not a JSON object") } == 5)
        #expect(log.lines.contains { $0.contains("54 lines on the progress descriptor") })
        #expect(log.lines.contains { $0.contains("was skipped") })
    }

    @Test func aFloodOfTicksIsMerged() async throws {
        let log = EventLog()
        let script = """
            import os
            f = os.fdopen(3, "w")
            for i in range(100000): f.write('{"stage":"a","step":%d,"steps":100000}\\n' % (i + 1))
            f.write('{"stage":"b"}\\n{"stage":"c","step":1,"steps":2}\\n')
            """
        let start = ContinuousClock.now
        _ = try await runScript(script, by: ["python3", "-c"], log: log)
        #expect(log.updates.count < 2000)
        #expect(log.updates.map(\.stage).suffix(2) == ["b", "c"])
        #expect(log.updates.dropLast(2).last?.step == 100_000)
        #expect(ContinuousClock.now - start < .seconds(60))
    }

    @Test func aHundredMegabytesOfStderrCostNoMemory() async throws {
        let log = EventLog()
        let before = residentKilobytes()
        let start = ContinuousClock.now
        let script =
            "head -c 50000000 /dev/zero | tr '\\0' 'x' >&2; yes 'a line of usual length, with some words in it' | head -c 50000000 >&2"
        _ = try await runScript(script, log: log)
        #expect(residentKilobytes() - before < 30_000)
        // However long it takes here.
        let seconds = Int((ContinuousClock.now - start).components.seconds) + 1
        #expect(log.lines.count <= WorkerLimits.logLinesBurst + WorkerLimits.logLinesPerSecond * seconds + 10)
        #expect(log.lines.allSatisfy { $0.utf8.count <= 2048 })
        #expect(log.dropped > 900_000)
    }

    @Test func aCancelledTaskEndsTheWholeGroup() async throws {
        try await withTemporaryDirectory { path in
            let script = "echo $$ >\(path)/a; sleep 300 & echo $! >\(path)/b; wait"
            let task = Task { try await runScript(script) }
            let pids = try await eventually("both processes run") { writtenPIDs(in: path) }
            #expect(pids.allSatisfy(isAlive))
            let start = ContinuousClock.now
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(ContinuousClock.now - start < .seconds(60))
            #expect(!pids.contains(where: isAlive))
        }
    }

    @Test func whatIgnoresTermIsKilledAfterTheGrace() async throws {
        try await withTemporaryDirectory { path in
            // The leader obeys, its child does not.
            let script =
                "(trap '' TERM; sh -c 'echo $PPID' >\(path)/b; while :; do sleep 1; done) & echo $$ >\(path)/a; wait"
            let task = Task { try await runScript(script, grace: .milliseconds(400)) }
            let pids = try await eventually("both processes run") { writtenPIDs(in: path) }
            let start = ContinuousClock.now
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            let took = ContinuousClock.now - start
            #expect(took >= .milliseconds(390) && took < .seconds(60))
            #expect(!pids.contains(where: isAlive))
        }
    }

    @Test func aStopWithinTheGraceMayCleanUp() async throws {
        let log = EventLog()
        let script = "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        let task = Task { try await runScript(script, log: log) }
        try await eventually("the trap is set") { log.lines.contains("ready") }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(log.lines.contains("cleaned up"))
    }

    @Test func aTaskThatIsCancelledBeforeItStartsRunsNothing() async throws {
        try await withTemporaryDirectory { path in
            let task = Task {
                while !Task.isCancelled { await Task.yield() }
                return try await runScript("touch \(path)/ran")
            }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(access(path + "/ran", F_OK) != 0)
        }
    }

    @Test func descendantsThatLingerAfterAGoodEndAreKilled() async throws {
        try await withTemporaryDirectory { path in
            let start = ContinuousClock.now
            _ = try await runScript("sleep 300 & echo $! >\(path)/a; echo $! >\(path)/b")
            #expect(ContinuousClock.now - start < .seconds(120))
            let pids = try #require(writtenPIDs(in: path))
            try await eventually("the child is gone") { !pids.contains(where: isAlive) }
        }
    }

    @Test func oneThatClosesEverythingAndLingersIsWaitedFor() async throws {
        let start = ContinuousClock.now
        _ = try await runScript("exec <&- >&- 2>&- 3>&-; sleep 0.5")
        #expect(ContinuousClock.now - start > .milliseconds(450))
    }

    @Test func nothingIsLeftBehind() async throws {
        _ = try await runScript("true")
        let before = openDescriptors()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<40 {
                group.addTask { _ = try? await runScript(index.isMultiple(of: 2) ? "echo x; exit \(index % 3)" : "kill -9 $$") }
            }
            try await group.waitForAll()
        }
        _ = try await failure(of: "x", by: ["no-such-generator"])
        // Other tests of this process have descriptors and children too, for a moment.
        try await eventually(within: .seconds(60), "nothing is left") { openDescriptors() <= before && zombies() == 0 }
    }
}
