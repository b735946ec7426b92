import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import ServiceLifecycle
import Telemetry

/// The gateway as one of several services: makes sure of Redis, serves, and says where it listens.
struct GatewayRole: Service {
    let configuration: GatewayConfiguration
    let queues: [String]
    let store: JobStore
    let redis: RedisConfiguration
    let logger: Logger
    /// Called once, with the bound port.
    let onListening: @Sendable (Int) -> Void

    init(
        _ settings: SettingsReader,
        data: String? = nil,
        queues: [String] = [],
        store: JobStore,
        redis: RedisConfiguration,
        logger: Logger,
        onListening: @escaping @Sendable (Int) -> Void
    ) throws(CommandError) {
        let address = try settings.value(Settings.listen)
        let isInsecure = try settings.value(Settings.insecure)
        guard isInsecure || Self.isLoopback(address.host) else {
            throw .usage(
                "--listen \(address.host) can be reached from other machines and nothing asks who comes; "
                    + "listen on 127.0.0.1 behind a proxy, or say --insecure (HEADWAY_GATEWAY_INSECURE)"
            )
        }
        var configuration = GatewayConfiguration()
        configuration.host = address.host
        configuration.port = address.port
        configuration.dataDirectory = try settings.value(Settings.gatewayData, override: data)
        configuration.pipelines = try Pipelines.load(settings)
        configuration.allowAnyQueue = try settings.value(Settings.anyQueue)
        configuration.allowedHosts = try settings.value(Settings.allowedHosts)
        configuration.allowedOrigins = try settings.value(Settings.allowedOrigins)
        configuration.drainWindow = try settings.value(Settings.drain)
        configuration.isInsecure = isInsecure
        try Directory.make(configuration.dataDirectory)
        self.configuration = configuration
        self.queues = try queues + settings.value(Settings.gatewayQueues)
        self.store = store
        self.redis = redis
        self.logger = logger
        self.onListening = onListening
    }

    func run() async throws {
        do {
            try await cancelWhenGracefulShutdown {
                try await StoreStart.prepare(store, logger: logger)
                if !queues.isEmpty { try await store.registerQueues(queues) }
            }
        } catch is CancellationError {
            return
        }
        let server = GatewayServer(
            configuration: configuration,
            store: store,
            redis: redis,
            registry: MetricsRegistry(),
            group: MultiThreadedEventLoopGroup.singleton,
            logger: logger
        )
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                try await server.run()
                return true
            }
            group.addTask {
                let address = try await server.waitUntilListening()
                onListening(address.port ?? configuration.port)
                return false
            }
            defer { group.cancelAll() }
            while let hasEnded = try await group.next() {
                if hasEnded { return }
            }
        }
    }

    static func isLoopback(_ host: String) -> Bool {
        host == "localhost" || host == "::1" || (host.hasPrefix("127.") && host.split(separator: ".").count == 4)
    }
}

/// The pipelines of this process: the built-in ones and those of `--pipelines`.
enum Pipelines {
    static func load(_ settings: SettingsReader) throws(CommandError) -> [Pipeline] {
        guard let path = try settings.optional(Settings.pipelines) else { return try PipelineFile.pipelines() }
        return try PipelineFile.pipelines(addingFrom: path, yaml: TextFile.read(path, limit: Limits.settingsFileBytes))
    }
}
