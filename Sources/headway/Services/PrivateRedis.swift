import Logging
import ServiceLifecycle
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// The `redis-server` of `headway dev`: reached by a unix socket only, keeps its data in a directory of its own, ends with us.
///
/// A server that a killed predecessor left behind is ended first; a second `dev` on the same directory is refused.
final class PrivateRedis: Service {
    let socketPath: String
    private let directory: String
    private let program: String
    private let logger: Logger
    /// Held for the life of the process: whoever holds it owns the directory.
    private let lock: CInt
    private let child: Mutex<ChildProcess?>

    var url: String { "unix://\(socketPath)" }

    /// Starts the server and returns when it answers.
    /// - Parameters:
    ///   - data: An absolute path; the server lives in `redis` below it.
    ///   - searchPath: `PATH`, for `program`.
    static func start(program: String, data: String, searchPath: String, logger: Logger) async throws(CommandError) -> PrivateRedis {
        guard let found = ProgramSearch.find(program, path: searchPath) else {
            throw CommandError(
                .failed,
                "\(program) is not installed; `apt-get install redis-server` installs it, --redis-server (HEADWAY_DEV_REDIS_SERVER) names another"
            )
        }
        let directory = "\(data)/redis"
        try Directory.make(directory)
        let socketPath = "\(directory)/redis.sock"
        guard socketPath.utf8.count <= Limits.socketPathBytes else {
            throw .usage("\(socketPath) is too long for a unix socket (\(Limits.socketPathBytes) bytes); choose a shorter --data")
        }
        let redis = PrivateRedis(
            program: found,
            directory: directory,
            socketPath: socketPath,
            lock: try takeLock(of: data),
            logger: logger
        )
        await redis.endPredecessor()
        try await redis.launch()
        return redis
    }

    private init(program: String, directory: String, socketPath: String, lock: CInt, logger: Logger) {
        self.program = program
        self.directory = directory
        self.socketPath = socketPath
        self.lock = lock
        self.logger = logger
        child = Mutex(nil)
    }

    deinit { close(lock) }

    /// Supervises the server until shutdown, then ends it: SIGTERM makes Redis write what it holds.
    func run() async throws {
        var failure: (any Error)?
        do {
            try await supervise()
        } catch {
            // What a shutdown interrupts is no failure.
            failure = error is CancellationError || Task.isCancelled ? nil : error
        }
        await child.withLock { $0 }?.stop(grace: .seconds(10))
        if let failure { throw failure }
    }

    private func supervise() async throws {
        var restarts = 0
        var lastStart = ContinuousClock.now
        while true {
            try await cancelWhenGracefulShutdown { try await Task.sleep(for: .milliseconds(200)) }
            guard let exit = child.withLock({ $0?.exit }) else { continue }
            restarts = .now - lastStart > .seconds(60) ? 1 : restarts + 1
            guard restarts <= Limits.privateRedisRestarts else {
                throw CommandError(.failed, "redis-server keeps ending (\(exit)); see \(directory)/redis.log")
            }
            logger.warning("redis-server ended, starting it again", metadata: ["exit": "\(exit)"])
            lastStart = .now
            try await launch()
        }
    }

    // MARK: Starting

    private func launch() async throws(CommandError) {
        unlink(socketPath)
        let arguments = [
            "--port", "0", "--unixsocket", socketPath, "--unixsocketperm", "700", "--dir", directory, "--daemonize", "no",
            "--pidfile", "\(directory)/redis.pid", "--logfile", "\(directory)/redis.log", "--appendonly", "yes",
            "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
        ]
        let process = try ChildProcess(program, arguments)
        child.withLock { $0 = process }
        let deadline = ContinuousClock.now + .seconds(Limits.privateRedisStartSeconds)
        while !answersPing() {
            if let exit = process.exit {
                throw CommandError(.failed, "redis-server ended at once (\(exit)): \(lastLogLine()); see \(directory)/redis.log")
            }
            guard .now < deadline else {
                await process.stop(grace: .seconds(1))
                throw CommandError(
                    .failed,
                    "redis-server did not answer within \(Limits.privateRedisStartSeconds) s; see \(directory)/redis.log"
                )
            }
            do {
                try await Task.sleep(for: .milliseconds(10))
            } catch {
                await process.stop(grace: .seconds(10))
                throw CommandError(.failed, "stopped while redis-server was starting")
            }
        }
    }

    /// While it loads its file, Redis answers every command with an error: then it is not ready.
    private func answersPing() -> Bool {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var timeout = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(socketPath.utf8).prefix($0.count - 1)) }
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard connected == 0, send(descriptor, "PING\r\n", 6, Int32(MSG_NOSIGNAL)) == 6 else { return false }
        var reply = [UInt8](repeating: 0, count: 64)
        let count = recv(descriptor, &reply, reply.count, 0)
        return count > 0 && reply.starts(with: Array("+PONG".utf8))
    }

    private func lastLogLine() -> String {
        let text = (try? TextFile.read("\(directory)/redis.log", limit: Limits.settingsFileBytes)) ?? ""
        return text.split(separator: "\n").last.map(String.init) ?? "no log"
    }

    // MARK: One owner

    private static func takeLock(of data: String) throws(CommandError) -> CInt {
        let path = "\(data)/dev.lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .usage("\(path): \(SystemText.error(errno)); choose another --data") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            let pid = (try? TextFile.read(path, limit: 64))?.filter(\.isNumber) ?? "?"
            throw .usage("another `headway dev` (process \(pid)) uses \(data); stop it or choose another --data")
        }
        ftruncate(descriptor, 0)
        let text = "\(getpid())\n"
        _ = Glibc.write(descriptor, text, text.utf8.count)
        return descriptor
    }

    /// The watchdog of a predecessor ends its server; this is for the case that the watchdog was killed as well.
    private func endPredecessor() async {
        guard let text = try? TextFile.read("\(directory)/redis.pid", limit: 64), let pid = pid_t(text.filter(\.isNumber)), pid > 1
        else { return }
        let deadline = ContinuousClock.now + .seconds(10)
        // A pid alone may have been given to another process by now: it must also be a redis that works in our directory.
        while isOurs(pid) {
            kill(pid, .now < deadline ? SIGTERM : SIGKILL)
            try? await Task.sleep(for: .milliseconds(20))
            if Task.isCancelled { return }
        }
    }

    private func isOurs(_ pid: pid_t) -> Bool {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/\(pid)/cwd", &buffer, buffer.count)
        guard count > 0 else { return false }
        let target = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard let real = realpath(directory, nil) else { return false }
        defer { free(real) }
        let name = (try? TextFile.read("/proc/\(pid)/comm", limit: 64)) ?? ""
        return target == String(cString: real) && name.hasPrefix("redis-server")
    }
}
