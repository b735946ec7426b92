public import Glibc
public import RedisLink
import Synchronization

/// A real `redis-server` of a test's own: its own directory, its own port and Unix socket, gone when the test is over.
public final class RedisServer: Sendable {
    public struct Options: Sendable {
        /// Listen on a free port of 127.0.0.1. The Unix socket exists always.
        public var listensOnTCP = true
        /// `appendonly yes`, `appendfsync always`: what was acknowledged survives ``RedisServer/kill()``.
        public var isDurable = false
        public var password: String?
        /// For example `10mb`; with policy `noeviction`.
        public var maxMemory: String?
        /// Further arguments, e.g. `["--save", "60 1"]`.
        public var extraArguments: [String] = []

        public init(
            listensOnTCP: Bool = true,
            isDurable: Bool = false,
            password: String? = nil,
            maxMemory: String? = nil,
            extraArguments: [String] = []
        ) {
            self.listensOnTCP = listensOnTCP
            self.isDurable = isDurable
            self.password = password
            self.maxMemory = maxMemory
            self.extraArguments = extraArguments
        }
    }

    /// How long a start may take, loading of the AOF included.
    private static let startLimit = Duration.seconds(15)

    public let directory: String
    public let options: Options
    /// 0 when the server has only its Unix socket.
    public let port: Int
    public var socketPath: String { "\(directory)/s" }
    private let process: Mutex<ChildProcess?> = Mutex(nil)

    /// Starts a server and waits until it answers. Throws `.missingProgram` when `redis-server` is not installed.
    public static func start(_ options: Options = .init()) async throws -> RedisServer {
        var lastError: (any Error)?
        // Another process may take the free port before redis-server binds it: try with a new one.
        for _ in 0..<3 {
            do {
                let server = try RedisServer(options)
                try await server.start()
                return server
            } catch let error as TestSupportError where error.code == .process && options.listensOnTCP {
                lastError = error
            }
        }
        throw lastError ?? TestSupportError(.process, "redis-server did not start")
    }

    private init(_ options: Options) throws {
        self.options = options
        port = options.listensOnTCP ? try freePort() : 0
        directory = try makeTemporaryDirectory(prefix: "hw-redis")
    }

    deinit {
        process.withLock { $0?.kill() }
        removeDirectory(directory)
    }

    /// Starts the server again with the same port and directory, after ``kill()`` or ``stop()``; waits until it answers.
    public func start() async throws {
        guard !isRunning else { return }
        unlink(socketPath)
        let child: ChildProcess
        do {
            child = try ChildProcess("redis-server", arguments, outputPath: logPath, scratch: directory)
        } catch let error as TestSupportError where error.code == .missingProgram {
            throw TestSupportError(
                .missingProgram,
                "redis-server is not installed; the tests need it: apt-get install redis-server (Debian, Ubuntu)"
            )
        }
        process.withLock { $0 = child }
        try await eventually(within: Self.startLimit, "an answer of redis-server (log: \(logPath))") {
            if let exit = child.exit {
                throw TestSupportError(.process, "redis-server ended with \(exit): \(self.log.suffix(500))")
            }
            return self.answers()
        }
    }

    /// `kill -9`; what is not on disk is lost.
    public func kill() { process.withLock { $0?.kill() } }

    /// SIGTERM, as `systemctl stop`; waits until it is gone.
    public func stop() async throws {
        guard let child = process.withLock({ $0 }) else { return }
        child.signal(SIGTERM)
        try await child.waitForExit()
    }

    /// SIGSTOP: connections stay open, nothing answers.
    public func freeze() { process.withLock { $0?.signal(SIGSTOP) } }
    /// SIGCONT.
    public func thaw() { process.withLock { $0?.signal(SIGCONT) } }
    public var isRunning: Bool { process.withLock { $0?.isRunning ?? false } }
    public var pid: pid_t? { process.withLock { $0?.pid } }

    /// What a client needs to reach this server, over TCP when it listens there.
    ///
    /// The timeouts are long: a machine under load must not fail a test. Tests of timeouts set their own.
    public func configuration(poolSize: Int = 2) -> RedisConfiguration {
        var configuration = RedisConfiguration(
            address: port > 0 ? .tcp(host: "127.0.0.1", port: port) : .unix(path: socketPath),
            password: options.password,
            poolSize: poolSize
        )
        configuration.connectTimeout = .seconds(10)
        configuration.commandTimeout = .seconds(10)
        return configuration
    }

    /// As given to `--redis`.
    public var url: String {
        let secret = options.password.map { ":\($0)@" } ?? ""
        return port > 0 ? "redis://\(secret)127.0.0.1:\(port)" : unixURL
    }

    public var unixURL: String { "unix://\(socketPath)" + (options.password.map { "?password=\($0)" } ?? "") }

    /// What redis-server wrote to its log.
    public var log: String { readFile(logPath) ?? "" }

    private var logPath: String { "\(directory)/log" }

    /// Runs `redis-cli` against this server and returns what it printed; for looking at Redis behind the code's back.
    @discardableResult
    public func cli(_ arguments: String...) async throws -> String {
        let output = "\(directory)/cli-\(UInt64.random(in: 0...(.max)))"
        let secret = options.password.map { ["--no-auth-warning", "-a", $0] } ?? []
        let child = try ChildProcess("redis-cli", ["-s", socketPath] + secret + arguments, outputPath: output)
        try await child.waitForExit()
        defer { unlink(output) }
        var text = readFile(output) ?? ""
        while text.last?.isNewline == true { text.removeLast() }
        return text
    }

    private var arguments: [String] {
        var result = [
            "--bind", "127.0.0.1", "--port", "\(port)", "--unixsocket", socketPath, "--dir", directory, "--daemonize", "no",
            "--save", "", "--loglevel", "notice", "--tcp-backlog", "128",
        ]
        if options.isDurable { result += ["--appendonly", "yes", "--appendfsync", "always"] }
        if let password = options.password { result += ["--requirepass", password] }
        if let maxMemory = options.maxMemory { result += ["--maxmemory", maxMemory, "--maxmemory-policy", "noeviction"] }
        return result + options.extraArguments
    }

    /// One `PING` over the Unix socket: `+PONG`, or `-NOAUTH`, which a ready server with a password says.
    private func answers() -> Bool {
        let socket = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { return false }
        defer { close(socket) }
        var patience = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array(socketPath.utf8)
        guard path.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard connected == 0, "PING\r\n".withCString({ send(socket, $0, 6, Int32(MSG_NOSIGNAL)) }) == 6 else { return false }
        var reply = [UInt8](repeating: 0, count: 64)
        let count = recv(socket, &reply, reply.count, 0)
        let text = String(decoding: reply.prefix(max(0, count)), as: UTF8.self)
        return text.hasPrefix("+PONG") || text.hasPrefix("-NOAUTH")
    }
}

/// The whole file as text, or nil.
public func readFile(_ path: String) -> String? {
    guard let file = fopen(path, "re") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
        let count = fread(&chunk, 1, chunk.count, file)
        if count == 0 { break }
        bytes += chunk.prefix(count)
    }
    return String(decoding: bytes, as: UTF8.self)
}
