import ArgumentParser
import Foundation
import JobStore
import Logging
import RedisLink
import ServiceLifecycle
import WorkerRuntime

/// `headway dev`: a private Redis, a gateway and a worker in one process.
struct DevCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev",
        abstract: "Start a private Redis, a gateway and a demo worker, all ended together.",
        discussion: "Without a command the worker runs examples/relief for the queue `relief`."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var listener: ListenOptions
    @Option(help: ArgumentHelp("Directory of everything this keeps.", valueName: "dir")) var data: String?
    @Flag(help: "Start Redis and the gateway only.") var noWorker = false
    @Option(help: ArgumentHelp("The redis-server to start.", valueName: "program")) var redisServer: String?
    @Option(name: .customLong("queue"), parsing: .singleValue, help: "Queue of the worker instead of relief; may be repeated.")
    var queues: [String] = []
    @Option(help: "Pipeline of the worker instead of relief.") var pipeline: String?
    @Option(help: "Jobs run at the same time.") var concurrency: String?
    @Argument(parsing: .postTerminator, help: "After --: what to run for each job.") var command: [String] = []

    func run() async throws {
        let settings = try common.reader(
            listener.flags + [
                .init(Settings.devData, data), .init(Settings.devNoWorker, noWorker), .init(Settings.devRedisServer, redisServer),
                .init(Settings.workerQueues, queues), .init(Settings.workerPipeline, pipeline), .init(Settings.concurrency, concurrency),
                .init(Settings.workerCommand, command),
            ]
        )
        let logger = try Logs.bootstrap(settings, label: "headway.dev")
        let data = try Self.absolute(settings.value(Settings.devData))
        let command = try settings.value(Settings.devNoWorker) ? nil : Self.command(settings)
        try Directory.make(data)
        let environment = ProcessInfo.processInfo.environment
        let redis = try await PrivateRedis.start(
            program: settings.value(Settings.devRedisServer),
            data: data,
            searchPath: environment["PATH"] ?? "",
            logger: logger
        )
        try await ServiceRunner.run(services(settings, data: data, redis: redis, command: command, logger: logger), logger: logger)
    }

    /// In the order of starting; they end in reverse: watchers are sent away first, Redis writes its file last.
    private func services(
        _ settings: SettingsReader,
        data: String,
        redis: PrivateRedis,
        command: [String]?,
        logger: Logger
    ) throws(CommandError) -> [any Service] {
        let session = try RedisSession(settings, url: redis.url, logger: logger, poolSize: 3)
        let client = session.client()
        let context = session.context(client)
        let host = try settings.value(Settings.listen).host
        let queues = try settings.optional(Settings.workerQueues) ?? ["relief"]
        let (ports, port) = AsyncStream<Int>.makeStream()
        let gateway = try GatewayRole(
            settings,
            data: "\(data)/data",
            queues: queues,
            context: context
        ) { bound in
            let url = ListenAddress.url(host: host, port: bound)
            Output.standard.line("listening \(url)")
            Output.standard.line("page      \(url)/")
            Output.standard.line("redis     \(redis.url)")
            Output.standard.line("stop      Ctrl-C, or kill -TERM \(ProcessInfo.processInfo.processIdentifier)")
            port.yield(bound)
            port.finish()
        }
        var services: [any Service] = [redis, RedisService(client: client)]
        if let command {
            let pipeline = try settings.optional(Settings.workerPipeline) ?? "relief"
            var worker = try WorkerRole(
                settings,
                command: command,
                queues: queues,
                pipeline: pipeline,
                workDirectory: "\(data)/work",
                context: context
            ) { Output.standard.line($0.replacing("worker ", with: "worker    ", maxReplacements: 1)) }
            // Ctrl-C on a demo should not wait for a whole job.
            worker.configuration.shutdownGrace =
                try settings.source(of: Settings.workerGrace.info) == "default"
                ? .seconds(2) : settings.value(Settings.workerGrace)
            services.append(LateWorker(worker: worker, host: host, ports: ports))
        }
        return services + [gateway]
    }

    /// The worker's files go through the gateway, whose port may not be known before it listens.
    private struct LateWorker: Service {
        var worker: WorkerRole
        let host: String
        let ports: AsyncStream<Int>

        func run() async throws {
            for await port in ports.cancelOnGracefulShutdown() {
                var worker = worker
                worker.configuration.gatewayURL = ListenAddress.url(host: host, port: port)
                return try await worker.run()
            }
        }
    }

    // MARK: The command

    private static func command(_ settings: SettingsReader) throws(CommandError) -> [String]? {
        if let command = try settings.optional(Settings.workerCommand) { return command }
        guard let root = repository() else {
            Output.error.line(
                "headway: examples/relief/relief.py is neither below this directory nor beside the program: no worker is started "
                    + "(give a command after --, or start one with `headway worker`)"
            )
            return nil
        }
        let python = "\(root)/.venv/bin/python3"
        return [access(python, X_OK) == 0 ? python : "python3", "\(root)/examples/relief/relief.py"]
    }

    /// The directory that holds examples/relief: this one or one above it, or one above the program.
    private static func repository() -> String? {
        let starts = [
            FileManager.default.currentDirectoryPath, (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "",
        ]
        for start in starts {
            var parts = start.split(separator: "/")
            while !parts.isEmpty {
                let root = "/" + parts.joined(separator: "/")
                if access("\(root)/examples/relief/relief.py", R_OK) == 0 { return root }
                parts.removeLast()
            }
        }
        return nil
    }

    private static func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : "\(FileManager.default.currentDirectoryPath)/\(path)"
    }
}
