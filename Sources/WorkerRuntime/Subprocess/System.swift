import CProcess
import Glibc

/// The text of an error number.
func describe(errno number: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    // The XSI form, which fills the buffer.
    guard strerror_r(number, &buffer, buffer.count) == 0 else { return "errno \(number)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Milliseconds of the monotonic clock: for durations, never for wall-clock times.
func monotonicMs() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int(time.tv_sec) * 1000 + Int(time.tv_nsec) / 1_000_000
}

/// One end of a pipe; closed when it goes away.
final class Descriptor {
    private(set) var number: Int32

    init(_ number: Int32) { self.number = number }
    deinit { close() }

    var isOpen: Bool { number >= 0 }

    func close() {
        guard number >= 0 else { return }
        Glibc.close(number)
        number = -1
    }

    func setNonBlocking() {
        _ = fcntl(number, F_SETFL, fcntl(number, F_GETFL) | O_NONBLOCK)
    }
}

/// A pseudo-terminal, for programs that draw their bars on a terminal only.
struct Terminal {
    let master: Descriptor
    let slave: Descriptor

    init() throws(BackendError) {
        var (master, slave): (Int32, Int32) = (-1, -1)
        let error = headway_open_terminal(&master, &slave, WorkerLimits.terminalRows, WorkerLimits.terminalColumns)
        guard error == 0 else { throw .system("no terminal for the generator", errno: error) }
        self.master = Descriptor(master)
        self.slave = Descriptor(slave)
    }
}

/// A pipe, both ends close-on-exec.
struct Pipe {
    let readEnd: Descriptor
    let writeEnd: Descriptor

    init() throws(BackendError) {
        var ends: [Int32] = [-1, -1]
        let error = headway_pipe(&ends)
        guard error == 0 else { throw .system("no pipe for the generator", errno: error) }
        readEnd = Descriptor(ends[0])
        writeEnd = Descriptor(ends[1])
    }
}

/// Runs `body` on a thread of its own, with all signals blocked.
func startThread(_ body: @escaping @Sendable () -> Void) -> Bool {
    final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let box = Unmanaged.passRetained(Box(body))
    let error = headway_start_thread(
        { pointer in
            if let pointer { Unmanaged<Box>.fromOpaque(pointer).takeRetainedValue().body() }
        },
        box.toOpaque()
    )
    if error != 0 { box.release() }
    return error == 0
}

/// The value of `body`, computed on a thread of its own because it blocks; nil when there is no thread to be had.
func onOwnThread<R: Sendable>(_ body: @escaping @Sendable () -> R) async -> R? {
    await withCheckedContinuation { continuation in
        if !startThread({ continuation.resume(returning: body()) }) { continuation.resume(returning: nil) }
    }
}
