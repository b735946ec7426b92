import CProcess
import Glibc
import ProgressCore
import Synchronization

/// Reaches a running supervisor from any thread, before, during and after its life.
final class StopSwitch: Sendable {
    private struct State {
        var isAsked = false
        var signals: [Int32] = []
        var wakeNumber: Int32 = -1
    }

    private let state = Mutex(State())

    var isAsked: Bool { state.withLock { $0.isAsked } }

    /// Asks it to stop.
    func ask() { wake { $0.isAsked = true } }

    /// Passes a signal on to the generator's process group; a few that wait at once are enough.
    func pass(_ signal: Int32) { wake { if $0.signals.count < 8 { $0.signals.append(signal) } } }

    func takeSignals() -> [Int32] {
        state.withLock { state in
            defer { state.signals = [] }
            return state.signals
        }
    }

    private func wake(_ change: (inout State) -> Void) {
        state.withLock { state in
            change(&state)
            guard state.wakeNumber >= 0 else { return }
            var byte: UInt8 = 1
            // The pipe is full only when the supervisor has been woken already.
            _ = write(state.wakeNumber, &byte, 1)
        }
    }

    /// The descriptor that wakes the supervisor, for as long as it lives; -1 afterwards.
    func attach(_ number: Int32) { state.withLock { $0.wakeNumber = number } }
}

/// Where a generator's stdin comes from.
enum GeneratorInput {
    case bytes([UInt8])
    /// From wherever ours does.
    case inherited
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

        /// Why it did not end well: its own words if it had any. Nil when it did.
        var failure: BackendError? {
            switch exit {
            case .status(0): nil
            case .status(let status): error ?? .generatorFailed(status: status, lastLine: lastErrorLine)
            case .signal(let signal): error ?? .generatorKilled(signal: signal, lastLine: lastErrorLine)
            case .unknown: error ?? .generatorKilled(signal: SIGKILL, lastLine: lastErrorLine)
            }
        }
    }

    let executable: String
    let arguments: [String]
    let environment: [String]
    let input: GeneratorInput
    let graceMs: Int
    /// Of the one terminal that stdout and stderr are; nil: they are two pipes.
    let terminal: TerminalSize?
    let stop: StopSwitch
    let events: BackendEvents
    /// How the generator's output is read.
    let pipeline: Pipeline
    /// Follow progress bars in it.
    let readsBars: Bool
    /// Where else it goes.
    var mirror: OutputMirror?

    /// Starts the generator and stays with it to its end. Blocks: only for a thread of its own.
    func run() throws(BackendError) -> Outcome {
        let stdin: (end: Descriptor?, theirs: Descriptor)
        let bytes: [UInt8]
        switch input {
        case .bytes(let given):
            let pipe = try Pipe()
            (stdin, bytes) = ((pipe.writeEnd, pipe.readEnd), given)
        case .inherited: (stdin, bytes) = ((nil, try Descriptor.ownInput()), [])
        }
        let progress = try Pipe()
        let orders = try Pipe()
        let reports = try Pipe()
        let wake = try Pipe()
        let output: (stdout: Descriptor, stderr: Descriptor?, ends: [Descriptor])
        if let size = terminal {
            let terminal = try Terminal(size)
            output = (terminal.master, nil, [terminal.slave, terminal.slave])
        } else {
            let stdout = try Pipe()
            let stderr = try Pipe()
            output = (stdout.readEnd, stderr.readEnd, [stdout.writeEnd, stderr.writeEnd])
        }
        stdin.end?.setNonBlocking()
        let ours = [output.stdout, progress.readEnd, reports.readEnd, wake.readEnd, wake.writeEnd, orders.writeEnd]
        for end in ours { end.setNonBlocking() }
        output.stderr?.setNonBlocking()
        let theirs = [stdin.theirs] + output.ends + [progress.writeEnd, orders.readEnd, reports.writeEnd]
        let guardian = try spawn(theirs)
        for end in theirs { end.close() }
        var child = Child(
            guardian: guardian,
            stdin: stdin.end,
            stdout: output.stdout,
            stderr: output.stderr,
            progress: progress.readEnd,
            wake: wake.readEnd,
            orders: orders.writeEnd,
            reports: reports.readEnd,
            input: bytes,
            output: GeneratorOutput(
                events: events,
                pipeline: pipeline,
                readsBars: readsBars,
                isMerged: terminal != nil,
                mirror: mirror,
                atMs: monotonicMs()
            ),
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
        let mode = terminal == nil ? "pipes" : "terminal"
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
