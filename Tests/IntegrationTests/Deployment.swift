import Glibc
import JobStore
import Logging
import NIOPosix
import ProgressCore
import RedisLink
import Synchronization
import TestSupport

/// A whole deployment of real processes: `redis-server`, gateways, workers; every one ended by its pid.
final class Deployment: Sendable {
    let redis: RedisServer
    let directory: String
    let client: RedisClient
    let store: JobStore
    private let running: Task<Void, any Error>
    private let processes = Mutex<[HeadwayProcess]>([])

    /// Starts Redis (AOF, every acknowledged write on disk), nothing else.
    static func start(settings: StoreSettings = .init()) async throws -> Deployment {
        let redis = try await RedisServer.start(RedisServer.Options(isDurable: true))
        return try await Deployment(redis: redis, settings: settings)
    }

    private init(redis: RedisServer, settings: StoreSettings) async throws {
        self.redis = redis
        directory = try makeTemporaryDirectory(prefix: "hw-deploy")
        client = RedisClient(configuration: redis.configuration(), eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: .quiet)
        let client = client
        running = Task { try await client.run() }  // ended in `stop`
        store = JobStore(redis: client, keys: Keys(), settings: settings)
        _ = try await store.prepare()
        try await store.registerQueues(["gpu"])
    }

    func stop() async {
        running.cancel()
        _ = await running.result
        for process in processes.withLock({ $0 }) { process.kill() }
        redis.kill()
        removeDirectory(directory)
    }

    deinit { running.cancel() }

    /// Runs `body` with a deployment and takes it down again.
    static func with(settings: StoreSettings = .init(), _ body: (Deployment) async throws -> Void) async throws {
        let deployment = try await start(settings: settings)
        do {
            try await body(deployment)
        } catch {
            await deployment.stop()
            throw error
        }
        await deployment.stop()
    }

    /// The built `headway`, beside the test bundle.
    static var binary: String {
        get throws {
            var buffer = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
            let path = String(decoding: buffer[..<max(0, count)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let binary = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) + "/headway"
            guard access(binary, X_OK) == 0 else {
                throw TestSupportError(.missingProgram, "\(binary) is not built: run swift build first")
            }
            return binary
        }
    }

    /// A file of the repository.
    static func file(_ path: String) -> String {
        let here = "\(#filePath)"
        return here.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 } + "/" + path
    }

    /// Starts a `headway`, which lives until it is killed or the deployment stops.
    func headway(_ name: String, _ arguments: [String], environment: [String: String] = [:]) throws -> HeadwayProcess {
        let path = "\(directory)/\(name)"
        let process = HeadwayProcess(
            process: try ChildProcess(
                try Self.binary,
                arguments,
                environment: environment,
                outputPath: path + ".out",
                errorPath: path + ".err"
            ),
            outputPath: path + ".out",
            errorPath: path + ".err"
        )
        processes.withLock { $0.append(process) }
        return process
    }

    /// Starts a gateway; `port` 0 picks one.
    func gateway(_ name: String = "gateway", port: Int = 0, environment: [String: String] = [:]) async throws -> Gateway {
        let process = try headway(
            name,
            ["gateway", "--redis", redis.url, "--listen", "127.0.0.1:\(port)", "--data", "\(directory)/data"],
            environment: environment
        )
        let line = try await process.line(startingWith: "listening http://127.0.0.1:")
        guard let port = line.split(separator: ":").last.flatMap({ Int($0) }) else {
            throw TestSupportError(.process, "the gateway said '\(line)'")
        }
        return Gateway(process: process, port: port)
    }

    struct Gateway: Sendable {
        let process: HeadwayProcess
        let port: Int
        var url: String { "http://127.0.0.1:\(port)" }
    }

    /// Starts a worker that runs the test generator.
    func worker(
        _ name: String = "worker",
        pipeline: String = "generic",
        gateway: Gateway? = nil,
        command: [String]? = nil,
        flags: [String] = [],
        environment: [String: String] = [:]
    ) async throws -> HeadwayProcess {
        var arguments = [
            "worker", "--redis", redis.url, "--queue", "gpu", "--pipeline", pipeline, "--work-dir", "\(directory)/\(name)-work",
        ]
        if let gateway { arguments += ["--gateway", gateway.url] }
        arguments += flags + ["--"] + (command ?? ["python3", Self.file("Tests/Fixtures/generators/steps.py")])
        let process = try headway(name, arguments, environment: environment)
        try await eventually(within: .seconds(20), "worker \(name) is registered; it said: \(process.errors)") {
            if let exit = process.process.exit { throw TestSupportError(.process, "worker \(name) ended: \(exit) \(process.errors)") }
            return try await self.store.workers().contains { $0.pid == Int(process.process.pid) }
        }
        return process
    }

    func submit(_ id: String, pipeline: String = "generic", params: String = "{}") async throws -> JobID {
        guard let job = JobID(id) else { throw TestSupportError(.process, "\(id) is no job id") }
        _ = try await store.submit(JobSubmission(id: job, queue: "gpu", pipeline: pipeline, owner: .anonymous, paramsJSON: params))
        return job
    }

    func waitForEnd(_ job: JobID, within limit: Duration = .seconds(60)) async throws -> JobSnapshot {
        try await eventually(
            within: limit,
            "the end of \(job)",
            produce: {
                guard let snapshot = try? await self.store.snapshot(job), snapshot.phase.isTerminal else { return nil }
                return snapshot
            }
        )
    }

    /// Waits until the job shows at least so many percent.
    func waitFor(_ job: JobID, percent: Double) async throws {
        try await eventually(within: .seconds(30), "\(percent) % of \(job)") {
            Double(try await self.store.snapshot(job)?.fields["percent"] ?? "") ?? 0 >= percent
        }
    }
}

/// A running `headway` and what it printed.
struct HeadwayProcess: Sendable {
    let process: ChildProcess
    let outputPath: String
    let errorPath: String

    var output: String { read(outputPath) }
    var errors: String { read(errorPath) }
    func kill() { process.kill() }

    /// Waits for a line of stdout.
    func line(startingWith prefix: String, within limit: Duration = .seconds(20)) async throws -> String {
        try await eventually(
            within: limit,
            "a line '\(prefix)…'; stderr: \(errors)",
            produce: {
                if let line = output.split(separator: "\n").first(where: { $0.hasPrefix(prefix) }) { return String(line) }
                if let exit = process.exit { throw TestSupportError(.process, "it ended with \(exit): \(errors)") }
                return nil
            }
        )
    }

    private func read(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while bytes.count < 16 * 1024 * 1024 {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension Logger {
    static var quiet: Logger { Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }) }
}
