import Gateway
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
    let context: RoleContext
    /// Called once, with the bound port.
    let onListening: @Sendable (Int) -> Void

    init(
        _ settings: SettingsReader,
        data: String? = nil,
        queues: [String] = [],
        context: RoleContext,
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
        configuration = GatewayConfiguration(
            host: address.host,
            port: address.port,
            dataDirectory: try settings.value(Settings.gatewayData, override: data),
            pipelines: try Pipelines.load(settings),
            allowAnyQueue: try settings.value(Settings.anyQueue),
            isInsecure: isInsecure,
            allowedHosts: try settings.value(Settings.allowedHosts),
            allowedOrigins: try settings.value(Settings.allowedOrigins),
            drainWindow: try settings.value(Settings.drain)
        )
        try Directory.make(configuration.dataDirectory)
        self.queues = try queues + settings.value(Settings.gatewayQueues)
        self.context = context
        self.onListening = onListening
    }

    func run() async throws {
        do {
            try await cancelWhenGracefulShutdown {
                try await StoreStart.prepare(context.store, logger: context.logger)
                if !queues.isEmpty { try await context.store.registerQueues(queues) }
            }
        } catch is CancellationError {
            return
        }
        let server = GatewayServer(
            configuration: configuration,
            store: context.store,
            redis: context.redis,
            registry: context.registry,
            group: MultiThreadedEventLoopGroup.singleton,
            logger: context.logger
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
