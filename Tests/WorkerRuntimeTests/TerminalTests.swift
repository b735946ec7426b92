import Glibc
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// A generator on a pseudo-terminal.
@Suite(.serialized, .timeLimit(.minutes(2))) struct TerminalTests {
    @Test func itIsATerminalOfAKnownSize() async throws {
        let log = EventLog()
        let script = """
            import os, sys
            print([os.isatty(n) for n in range(4)], os.get_terminal_size(1), os.environ["TERM"], os.environ["COLUMNS"])
            print("err", file=sys.stderr)
            print(os.ttyname(1) == os.ttyname(2), os.tcgetpgrp(1) == os.getpgrp(), os.getsid(0) == os.getpid())
            open("/dev/tty", "w").write("by way of /dev/tty\\n")
            print('{"result":{"a":1}}', file=os.fdopen(3, "w"))
            """
        let result = try await runScript(script, by: ["python3", "-c"], usesTerminal: true, log: log)
        #expect(result.resultJSON == #"{"a":1}"#)
        #expect(
            Set(log.lines) == [
                "[False, True, True, False] os.terminal_size(columns=120, lines=30) xterm 120", "True True True", "by way of /dev/tty",
                "err",
            ]
        )
    }

    @Test func exitStatusAndSignalAreThoseOfTheProgram() async throws {
        for (script, code, message) in [
            ("echo no >&2; exit 3", "generator_failed", "the generator exited with status 3: no"),
            ("kill -9 $$", "generator_killed", "the generator was ended by signal 9"),
        ] {
            do {
                _ = try await runScript(script, usesTerminal: true)
                Issue.record("it did not fail")
            } catch let error as BackendError {
                #expect(error.code == code)
                #expect(error.message == message)
            }
        }
        // Other tests of this process have children too, for a moment.
        try await eventually(within: .seconds(60), "everything is reaped") { zombies() == 0 }
    }

    @Test func aStopEndsIt() async throws {
        try await withTemporaryDirectory { path in
            let task = Task {
                try await runScript("trap '' HUP; echo $$ >\(path)/b; sleep 300 & echo $! >\(path)/a; wait", usesTerminal: true)
            }
            let pids = try await eventually(within: .seconds(20), "it runs") { writtenPIDs(in: path) }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(!pids.contains(where: isAlive))
        }
    }

    /// `disable=None` of tqdm: no bar unless on a terminal.
    @Test func barsForTerminalsOnlyAreSeen() async throws {
        let script = """
            import sys, time
            if sys.stderr.isatty():
                for n in range(1, 5):
                    sys.stderr.write("\\rBaking: %3d%%|####      | %d/4 [00:0%d<00:00,  1.00it/s]" % (n * 25, n, n))
                    sys.stderr.flush()
                sys.stderr.write("\\n")
            """
        let log = EventLog()
        _ = try await runScript(script, by: ["python3", "-c"], log: log)
        #expect(log.updates.isEmpty)
        _ = try await runScript(script, by: ["python3", "-c"], usesTerminal: true, log: log)
        #expect(log.updates.last == ProgressUpdate(stage: "Baking", step: 4, steps: 4))
        #expect(log.lines.count == 1)
    }

    @Test func aFloodComesThrough() async throws {
        let log = EventLog()
        _ = try await runScript("yes 0123456789 | head -n 200000; echo end >&2", usesTerminal: true, log: log)
        #expect(log.lines.count + log.dropped == 200_001)
    }
}
