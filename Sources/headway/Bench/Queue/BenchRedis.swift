import Glibc

/// The `redis-server` of one benchmark: on a free port of the loopback interface, without persistence unless asked for, gone with us.
final class BenchRedis: Sendable {
    let port: Int
    let directory: String
    private let child: ChildProcess

    var url: String { "redis://127.0.0.1:\(port)" }
    var pid: pid_t { child.pid }

    static func start(program: String, directory: String, isDurable: Bool) async throws(CommandError) -> BenchRedis {
        guard let port = freePort() else { throw CommandError(.failed, "no free port on 127.0.0.1") }
        let child = try ChildProcess(
            program,
            [
                "--port", "\(port)", "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--appendonly", isDurable ? "yes" : "no",
                "--logfile", "\(directory)/redis.log", "--daemonize", "no",
            ]
        )
        let redis = BenchRedis(port: port, directory: directory, child: child)
        let deadline = ContinuousClock.now + .seconds(Limits.privateRedisStartSeconds)
        while (try? redis.connect().command(["PING"])) == nil {
            guard child.exit == nil, .now < deadline else {
                await redis.stop()
                throw CommandError(.failed, "\(program) did not start; see \(directory)/redis.log")
            }
            try? await Task.sleep(for: .milliseconds(20))
        }
        return redis
    }

    private init(port: Int, directory: String, child: ChildProcess) {
        self.port = port
        self.directory = directory
        self.child = child
    }

    func connect() throws(CommandError) -> HiredisConnection { try HiredisConnection(port: port) }

    func stop() async { await child.stop(grace: .seconds(10)) }

    /// A field of `INFO` that is a number.
    func info(_ name: String, _ section: String) throws(CommandError) -> Int {
        let text = try connect().command(["INFO", section]).text ?? ""
        for line in text.split(whereSeparator: \.isNewline) where line.hasPrefix(name + ":") {
            return Int(line.dropFirst(name.count + 1)) ?? 0
        }
        throw CommandError(.failed, "this redis-server's INFO has no \(name)")
    }

    func flush() throws(CommandError) { try connect().command(["FLUSHALL"]) }

    /// Taken again by another program in the meantime, redis-server says so and ends: then the whole start fails.
    private static func freePort() -> Int? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        return withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                guard bind(descriptor, raw, length) == 0, getsockname(descriptor, raw, &length) == 0 else { return nil }
                return Int(UInt16(bigEndian: pointer.pointee.sin_port))
            }
        }
    }
}

/// A clock that all processes of one machine share.
enum MachineClock {
    /// Nanoseconds of `CLOCK_MONOTONIC`, which Python's `time.monotonic_ns()` reads too.
    static func nanoseconds() -> Int { read(CLOCK_MONOTONIC) }

    /// Nanoseconds since 1970, which `date +%s%N` prints.
    static func unixNanoseconds() -> Int { read(CLOCK_REALTIME) }

    private static func read(_ clock: clockid_t) -> Int {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int(time.tv_sec) * 1_000_000_000 + Int(time.tv_nsec)
    }
}
