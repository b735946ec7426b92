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

/// One child process from its start to its last trace: feeds its input, reads its output, stops it, reaps it.
///
/// Runs on a thread of its own with one `poll` over everything, so that a blocked generator holds no thread of the
/// concurrency pool and nothing here needs a lock.
struct ProcessSupervisor {
    enum Exit: Hashable {
        case status(Int32)
        case signal(Int32)
        /// Somebody else reaped it, or it does not die.
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
    let stop: StopSwitch
    let events: BackendEvents
    /// Whose stages the generator's progress bars stand for; nil: they are log lines.
    let pipeline: Pipeline?

    /// Starts the child and stays with it to its end. Blocks: only for a thread of its own.
    func run() throws(BackendError) -> Outcome {
        let stdin = try Pipe()
        let stdout = try Pipe()
        let stderr = try Pipe()
        let progress = try Pipe()
        let wake = try Pipe()
        for end in [stdin.writeEnd, stdout.readEnd, stderr.readEnd, progress.readEnd, wake.readEnd, wake.writeEnd] { end.setNonBlocking() }
        let pid = try spawn([stdin.readEnd, stdout.writeEnd, stderr.writeEnd, progress.writeEnd])
        for end in [stdin.readEnd, stdout.writeEnd, stderr.writeEnd, progress.writeEnd] { end.close() }
        var child = Child(
            pid: pid,
            stdin: stdin.writeEnd,
            stdout: stdout.readEnd,
            stderr: stderr.readEnd,
            progress: progress.readEnd,
            wake: wake.readEnd,
            exited: Descriptor(headway_pidfd_open(pid)),
            input: input,
            output: GeneratorOutput(events: events, pipeline: pipeline, atMs: monotonicMs()),
            plan: StopPlan(graceMs: graceMs)
        )
        stop.attach(wake.writeEnd.number)
        defer { stop.attach(-1) }
        return child.live(until: stop)
    }

    private func spawn(_ ends: [Descriptor]) throws(BackendError) -> pid_t {
        var pid: pid_t = 0
        let error = withCStrings([executable] + arguments) { argv in
            withCStrings(environment) { envp in
                headway_spawn(&pid, executable, argv, envp, ends.map(\.number), Int32(ends.count))
            }
        }
        switch error {
        case 0: return pid
        case ENOENT, EACCES, ENOEXEC, ENOTDIR, ELOOP, EISDIR: throw .generatorNotFound(executable, describe(errno: error))
        default: throw .system("the generator could not be started", errno: error)
        }
    }

    private func withCStrings<R>(_ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R) -> R {
        var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        return body(pointers)
    }
}

/// The life of one child, as its supervisor's thread sees it.
private struct Child {
    let pid: pid_t
    let stdin: Descriptor
    let stdout: Descriptor
    let stderr: Descriptor
    let progress: Descriptor
    let wake: Descriptor
    /// A pidfd; not open on a kernel without them, which is then asked from time to time.
    let exited: Descriptor
    var input: [UInt8]
    var output: GeneratorOutput
    var plan: StopPlan

    private var written = 0
    private var hasExited = false
    private var buffer = [UInt8](repeating: 0, count: WorkerLimits.readBytes)

    init(
        pid: pid_t,
        stdin: Descriptor,
        stdout: Descriptor,
        stderr: Descriptor,
        progress: Descriptor,
        wake: Descriptor,
        exited: Descriptor,
        input: [UInt8],
        output: GeneratorOutput,
        plan: StopPlan
    ) {
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.progress = progress
        self.wake = wake
        self.exited = exited
        self.input = input
        self.output = output
        self.plan = plan
    }

    private var areAllPipesClosed: Bool { !stdout.isOpen && !stderr.isOpen && !progress.isOpen }

    mutating func live(until stop: StopSwitch) -> ProcessSupervisor.Outcome {
        if input.isEmpty { stdin.close() }
        while true {
            if stop.isAsked { plan.askStop(atMs: monotonicMs()) }
            while let action = plan.next(atMs: monotonicMs(), areAllPipesClosed: areAllPipesClosed) {
                switch action {
                case .terminate: kill(-pid, SIGTERM)
                case .kill: kill(-pid, SIGKILL)
                case .finish: return end(reaped: true)
                case .abandon: return end(reaped: false)
                }
            }
            waitForSomething()
        }
    }

    /// One `poll`, and then one read or write per descriptor that is ready, so that none starves another.
    private mutating func waitForSomething() {
        var polled = [
            pollfd(fd: stdin.number, events: Int16(POLLOUT), revents: 0),
            pollfd(fd: stdout.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: stderr.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: progress.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: wake.number, events: Int16(POLLIN), revents: 0),
            // A pidfd stays readable: once seen it is left out. Negative numbers are ignored by poll.
            pollfd(fd: hasExited ? -1 : exited.number, events: Int16(POLLIN), revents: 0),
        ]
        var timeout: Int32 = -1
        if let deadline = plan.deadline { timeout = Int32(clamping: max(0, deadline - monotonicMs())) }
        if !hasExited, !exited.isOpen {
            timeout = timeout < 0 ? WorkerLimits.exitPollMs : min(timeout, WorkerLimits.exitPollMs)
        }
        guard poll(&polled, nfds_t(polled.count), timeout) >= 0 || errno == EINTR else { return }
        let now = monotonicMs()
        if polled[0].revents != 0 { writeInput() }
        // Progress first: what a generator says of itself is older than what it prints on its way out.
        if polled[3].revents != 0 { read(progress) { output, bytes in output.readProgress(bytes, atMs: now) } }
        if polled[1].revents != 0 { read(stdout) { output, bytes in output.readLog(bytes, from: .stdout, atMs: now) } }
        if polled[2].revents != 0 { read(stderr) { output, bytes in output.readLog(bytes, from: .stderr, atMs: now) } }
        if polled[4].revents != 0 { read(wake) { _, _ in } }
        if !hasExited, polled[5].revents != 0 || !exited.isOpen, headway_has_exited(pid) != 0 {
            hasExited = true
            plan.leaderExited(atMs: now)
        }
    }

    private mutating func writeInput() {
        let count = input.withUnsafeBytes { bytes in
            write(stdin.number, bytes.baseAddress.map { $0 + written }, bytes.count - written)
        }
        if count > 0 { written += count }
        // A generator may close its input unread (EPIPE): that is its own business.
        let isBroken = count < 0 && errno != EAGAIN && errno != EINTR
        if written == input.count || isBroken {
            stdin.close()
            input = []
        }
    }

    private mutating func read(_ descriptor: Descriptor, _ use: (inout GeneratorOutput, UnsafeRawBufferPointer) -> Void) {
        var output = output
        let count = buffer.withUnsafeMutableBytes { space in
            let count = Glibc.read(descriptor.number, space.baseAddress, space.count)
            if count > 0 { use(&output, UnsafeRawBufferPointer(rebasing: space.prefix(count))) }
            return count
        }
        self.output = output
        if count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR) { descriptor.close() }
    }

    private mutating func end(reaped: Bool) -> ProcessSupervisor.Outcome {
        kill(-pid, SIGKILL)
        var exit = ProcessSupervisor.Exit.unknown
        if reaped {
            var status: Int32 = 0
            var result: pid_t
            repeat { result = waitpid(pid, &status, 0) } while result < 0 && errno == EINTR
            if result == pid { exit = status & 0x7f == 0 ? .status(status >> 8 & 0xff) : .signal(status & 0x7f) }
        }
        output.finish(atMs: monotonicMs())
        return ProcessSupervisor.Outcome(
            exit: exit,
            wasStopped: plan.wasStopped,
            resultJSON: output.resultJSON,
            error: output.error,
            lastErrorLine: output.lastError
        )
    }
}
