import CProcess
import Glibc
import ProgressCore
import Synchronization

/// Asks a running supervisor to stop, from any thread, before, during and after its life.
final class StopSwitch: Sendable {
    private let state = Mutex<(isAsked: Bool, wakeNumber: Int32)>((false, -1))

    var isAsked: Bool { state.withLock { $0.isAsked } }

    func ask() {
        state.withLock { state in
            state.isAsked = true
            guard state.wakeNumber >= 0 else { return }
            var byte: UInt8 = 1
            // The pipe is full only when the supervisor has been woken already.
            _ = write(state.wakeNumber, &byte, 1)
        }
    }

    /// The descriptor that wakes the supervisor, for as long as it lives; -1 afterwards.
    func attach(_ number: Int32) { state.withLock { $0.wakeNumber = number } }
}

/// One generator from its start to its last trace: feeds its input, reads its output, stops it and everything it started.
///
/// The generator is the child of a guard (`CProcess/guard.c`), a process of its own that outlives the worker for as long as it takes
/// to kill what the worker left running. Runs on a thread of its own with one `poll` over everything, so that a blocked generator
/// holds no thread of the concurrency pool and nothing here needs a lock.
struct ProcessSupervisor {
    enum Exit: Hashable {
        case status(Int32)
        case signal(Int32)
        /// It does not die, or its guard was killed.
        case unknown
    }

    struct Outcome {
        let exit: Exit
        /// It was asked to stop; how it ended says nothing then.
        let wasStopped: Bool
        let resultJSON: String?
        let error: BackendError?
        let lastErrorLine: String
    }

    let executable: String
    let arguments: [String]
    let environment: [String]
    let input: [UInt8]
    let graceMs: Int
    /// stdout and stderr are one terminal, instead of two pipes.
    let usesTerminal: Bool
    let stop: StopSwitch
    let events: BackendEvents
    /// How the generator's output is read.
    let pipeline: Pipeline
    /// Follow progress bars in it.
    let readsBars: Bool

    /// Starts the generator and stays with it to its end. Blocks: only for a thread of its own.
    func run() throws(BackendError) -> Outcome {
        let stdin = try Pipe()
        let progress = try Pipe()
        let orders = try Pipe()
        let reports = try Pipe()
        let wake = try Pipe()
        let output: (stdout: Descriptor, stderr: Descriptor?, ends: [Descriptor])
        if usesTerminal {
            let terminal = try Terminal()
            output = (terminal.master, nil, [terminal.slave, terminal.slave])
        } else {
            let stdout = try Pipe()
            let stderr = try Pipe()
            output = (stdout.readEnd, stderr.readEnd, [stdout.writeEnd, stderr.writeEnd])
        }
        let ours = [stdin.writeEnd, output.stdout, progress.readEnd, reports.readEnd, wake.readEnd, wake.writeEnd, orders.writeEnd]
        for end in ours { end.setNonBlocking() }
        output.stderr?.setNonBlocking()
        let theirs = [stdin.readEnd] + output.ends + [progress.writeEnd, orders.readEnd, reports.writeEnd]
        let guardian = try spawn(theirs)
        for end in theirs { end.close() }
        var child = Child(
            guardian: guardian,
            stdin: stdin.writeEnd,
            stdout: output.stdout,
            stderr: output.stderr,
            progress: progress.readEnd,
            wake: wake.readEnd,
            orders: orders.writeEnd,
            reports: reports.readEnd,
            input: input,
            output: GeneratorOutput(events: events, pipeline: pipeline, readsBars: readsBars, isMerged: usesTerminal, atMs: monotonicMs()),
            plan: StopPlan(graceMs: graceMs)
        )
        stop.attach(wake.writeEnd.number)
        defer { stop.attach(-1) }
        let outcome = child.live(until: stop)
        switch child.startError {
        case nil: return outcome
        case let error? where [ENOENT, EACCES, ENOEXEC, ENOTDIR, ELOOP, EISDIR].contains(error):
            throw .generatorNotFound(executable, describe(errno: error))
        case let error?: throw .system("the generator could not be started", errno: error)
        }
    }

    private func spawn(_ ends: [Descriptor]) throws(BackendError) -> pid_t {
        var pid: pid_t = 0
        let mode = usesTerminal ? "terminal" : "pipes"
        let error = withCStrings([headway_guard_name, mode, executable] + arguments) { argv in
            withCStrings(environment) { envp in
                headway_spawn_guard(&pid, argv, envp, ends.map(\.number), Int32(ends.count))
            }
        }
        guard error == 0 else { throw .system("the generator could not be started", errno: error) }
        return pid
    }

    private func withCStrings<R>(_ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R) -> R {
        var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        return body(pointers)
    }
}
