import Foundation
import JobStore
import Logging
import NIOPosix
import ProgressCore
import RedisLink
import ServiceLifecycle
import Telemetry
import UnixSignals
import WorkerRuntime

/// The worker as one of several services: makes sure of Redis, says that it is ready, runs jobs.
struct WorkerRole: Service {
    var configuration: WorkerConfiguration
    let command: [String]
    let cancelGrace: Duration
    let readsBars: Bool
    let usesTerminal: Bool
    let pipelines: [Pipeline]
    let context: RoleContext
    /// The process's store, with this worker's lease.
    let store: JobStore
    let onReady: @Sendable (String) -> Void

    init(
        _ settings: SettingsReader,
        command: [String],
        queues: [String]? = nil,
        pipeline: String? = nil,
        workDirectory: String? = nil,
        context: RoleContext,
        onReady: @escaping @Sendable (String) -> Void
    ) throws(CommandError) {
        pipelines = try Pipelines.load(settings)
        var configuration = WorkerConfiguration()
        configuration.name = try settings.optional(Settings.workerName) ?? Self.defaultName()
        configuration.queues = try settings.value(Settings.workerQueues, override: queues)
        configuration.pipeline = try settings.value(Settings.workerPipeline, override: pipeline)
        configuration.concurrency = try settings.value(Settings.concurrency)
        configuration.labels = try settings.value(Settings.workerPrefer)
        guard configuration.labels.count <= StoreLimits.labels else {
            throw .usage("--prefer names \(configuration.labels.count) labels; at most \(StoreLimits.labels)")
        }
        configuration.gatewayURL = try settings.value(Settings.gatewayURL)
        configuration.workDirectory = try settings.value(Settings.workDirectory, override: workDirectory)
        configuration.updatesPerSecond = try settings.value(Settings.updateRate)
        configuration.shutdownGrace = try settings.value(Settings.workerGrace)
        configuration.maxRuntime = try settings.value(Settings.maxRuntime)
        configuration.stallKill = try settings.optional(Settings.stallKill)
        configuration.jobQuotaBytes = try settings.optional(Settings.jobQuota)
        configuration.version = Version.text
        cancelGrace = try settings.value(Settings.cancelGrace)
        readsBars = try settings.value(Settings.readsBars)
        usesTerminal = try settings.value(Settings.usesTerminal)
        guard pipelines.contains(where: { $0.name == configuration.pipeline }) else {
            let known = pipelines.map(\.name).joined(separator: ", ")
            throw .usage("--pipeline \(configuration.pipeline) is not known; known are \(known) (--pipelines FILE adds more)")
        }
        let environment = ProcessInfo.processInfo.environment
        let path = environment["PATH"] ?? ""
        configuration.gpuTool = ProgramSearch.find("nvidia-smi", path: path)
        configuration.visibleGPUs = environment["CUDA_VISIBLE_DEVICES"]
        guard let program = command.first else {
            throw .usage("a worker needs a command: write it after --, for example `headway worker --queue gpu -- python3 render.py`")
        }
        guard ProgramSearch.find(program, path: path) != nil else {
            throw .usage("\(program): no such program; the command after -- must be a program in PATH or a path to one")
        }
        var storeSettings = context.store.settings
        storeSettings.lease = try settings.value(Settings.lease)
        storeSettings.heartbeat = try settings.value(Settings.heartbeat)
        guard storeSettings.heartbeat * 3 <= storeSettings.lease else {
            throw .usage("--heartbeat must be at most a third of --lease, so that one lost sign of life does not lose the job")
        }
        try Directory.make(configuration.workDirectory)
        self.configuration = configuration
        self.command = command
        self.context = context
        store = JobStore(redis: context.store.redis, keys: context.store.keys, settings: storeSettings)
        self.onReady = onReady
    }

    func run() async throws {
        do {
            try await cancelWhenGracefulShutdown { try await StoreStart.prepare(store, logger: context.logger) }
        } catch is CancellationError {
            return
        }
        let worker = Worker(
            configuration: configuration,
            store: store,
            redis: context.redis,
            pipelines: pipelines,
            backend: SubprocessBackend(command: command, grace: cancelGrace, readsBars: readsBars, usesTerminal: usesTerminal),
            registry: context.registry,
            group: MultiThreadedEventLoopGroup.singleton,
            logger: context.logger
        )
        onReady("worker \(configuration.name) serving \(configuration.queues.joined(separator: " "))")
        let signals = await UnixSignalsSequence(trapping: [.sigusr1])
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for await _ in signals {
                    context.logger.notice("draining", metadata: ["signal": "SIGUSR1"])
                    worker.drain()
                }
            }
            defer { group.cancelAll() }
            try await worker.run()
        }
    }

    /// Host and process: unique while it lives, and it says where to look.
    private static func defaultName() -> String {
        let host = ProcessInfo.processInfo.hostName.prefix { $0 != "." }.filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }
        return "\(host.prefix(40))-\(ProcessInfo.processInfo.processIdentifier)"
    }
}
