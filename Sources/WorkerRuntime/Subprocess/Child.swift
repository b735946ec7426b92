import CProcess
import Glibc

/// The life of one generator and its guard, as the supervisor's thread sees it.
struct Child {
    private let guardian: pid_t
    private let stdin: Descriptor
    private let stdout: Descriptor
    /// Nil when both go to one terminal.
    private let stderr: Descriptor?
    private let progress: Descriptor
    private let wake: Descriptor
    /// To the guard; closing it ends everything.
    private let orders: Descriptor
    /// From the guard; its end is the guard's.
    private let reports: Descriptor
    private var input: [UInt8]
    private var output: GeneratorOutput
    private var plan: StopPlan

    private var written = 0
    private var report: [UInt8] = []
    private var exit: ProcessSupervisor.Exit?
    private var buffer = [UInt8](repeating: 0, count: WorkerLimits.readBytes)
    /// The error number, when the generator could not be started.
    private(set) var startError: Int32?

    init(
        guardian: pid_t,
        stdin: Descriptor,
        stdout: Descriptor,
        stderr: Descriptor?,
        progress: Descriptor,
        wake: Descriptor,
        orders: Descriptor,
        reports: Descriptor,
        input: [UInt8],
        output: GeneratorOutput,
        plan: StopPlan
    ) {
        self.guardian = guardian
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.progress = progress
        self.wake = wake
        self.orders = orders
        self.reports = reports
        self.input = input
        self.output = output
        self.plan = plan
    }

    private var areAllPipesClosed: Bool { !stdout.isOpen && stderr?.isOpen != true && !progress.isOpen }

    mutating func live(until stop: StopSwitch) -> ProcessSupervisor.Outcome {
        if input.isEmpty { stdin.close() }
        while true {
            if stop.isAsked { plan.askStop(atMs: monotonicMs()) }
            while let action = plan.next(atMs: monotonicMs(), areAllPipesClosed: areAllPipesClosed) {
                switch action {
                case .terminate: give(headway_order_terminate)
                case .kill: give(headway_order_kill)
                case .finish, .abandon: return end()
                }
            }
            waitForSomething()
        }
    }

    private func give(_ order: headway_order) {
        var byte = UInt8(order.rawValue)
        _ = write(orders.number, &byte, 1)
    }

    /// One `poll`, and then one read or write per descriptor that is ready, so that none starves another.
    private mutating func waitForSomething() {
        // Negative numbers are ignored by poll.
        var polled = [
            pollfd(fd: stdin.number, events: Int16(POLLOUT), revents: 0),
            pollfd(fd: stdout.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: stderr?.number ?? -1, events: Int16(POLLIN), revents: 0),
            pollfd(fd: progress.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: wake.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: reports.number, events: Int16(POLLIN), revents: 0),
        ]
        var timeout: Int32 = -1
        if let deadline = plan.deadline { timeout = Int32(clamping: max(0, deadline - monotonicMs())) }
        guard poll(&polled, nfds_t(polled.count), timeout) >= 0 || errno == EINTR else { return }
        let now = monotonicMs()
        if polled[0].revents != 0 { writeInput() }
        // Progress first: what a generator says of itself is older than what it prints on its way out.
        if polled[3].revents != 0 { read(progress) { output, bytes in output.readProgress(bytes, atMs: now) } }
        if polled[1].revents != 0 { read(stdout) { output, bytes in output.readLog(bytes, from: .stdout, atMs: now) } }
        if polled[2].revents != 0, let stderr {
            read(stderr) { output, bytes in output.readLog(bytes, from: .stderr, atMs: now) }
        }
        if polled[4].revents != 0 { read(wake) { _, _ in } }
        if polled[5].revents != 0 { readReport(atMs: now) }
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

    /// A terminal ends with EIO where a pipe ends with end of file.
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

    private mutating func readReport(atMs now: Int) {
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = Glibc.read(reports.number, &bytes, bytes.count)
        if count > 0 { report += bytes.prefix(count) }
        if report.count >= 8 {
            let (kind, value) = report.withUnsafeBytes {
                ($0.loadUnaligned(as: Int32.self), $0.loadUnaligned(fromByteOffset: 4, as: Int32.self))
            }
            report.removeFirst(8)
            if kind == Int32(headway_report_not_started.rawValue) { startError = value }
            exit = value & 0x7f == 0 ? .status(value >> 8 & 0xff) : .signal(value & 0x7f)
            plan.leaderExited(atMs: now)
        }
        if count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR) {
            reports.close()
            plan.leaderExited(atMs: now)
        }
    }

    /// Lets the guard kill what is left, and reaps it; one that cannot end, because a process hangs in the kernel, is left behind.
    private mutating func end() -> ProcessSupervisor.Outcome {
        orders.close()
        let deadline = monotonicMs() + WorkerLimits.unkillableMs
        while reports.isOpen, monotonicMs() < deadline {
            var polled = [pollfd(fd: reports.number, events: Int16(POLLIN), revents: 0)]
            if poll(&polled, 1, Int32(clamping: deadline - monotonicMs())) > 0 { readReport(atMs: monotonicMs()) }
        }
        if !reports.isOpen { while waitpid(guardian, nil, 0) < 0, errno == EINTR {} }
        output.finish(atMs: monotonicMs())
        return ProcessSupervisor.Outcome(
            exit: exit ?? .unknown,
            wasStopped: plan.wasStopped,
            resultJSON: output.resultJSON,
            error: output.error,
            lastErrorLine: output.lastError
        )
    }
}
