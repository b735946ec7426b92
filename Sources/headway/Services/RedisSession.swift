import JobStore
import Logging
import NIOCore
import NIOPosix
import RedisLink
import Telemetry

/// What the roles of one process share.
struct RoleContext: Sendable {
    let store: JobStore
    let redis: RedisConfiguration
    let registry: MetricsRegistry
    let logger: Logger
}

/// One command's connection to Redis, opened by the settings and closed when the command is done.
struct RedisSession {
    let configuration: RedisConfiguration
    let keys: Keys
    private let logger: Logger

    /// - Parameter url: Instead of the one in the settings, with the password the settings may hold.
    init(_ settings: SettingsReader, url: String? = nil, logger: Logger? = nil, poolSize: Int = 1) throws(CommandError) {
        let password = url == nil ? try settings.optional(Settings.redisPassword) : nil
        let url = try settings.value(Settings.redisURL, override: url)
        do throws(RedisError) {
            var configuration = try RedisConfiguration(url: url)
            configuration.poolSize = poolSize
            if let password { configuration.password = password }
            self.configuration = configuration
        } catch {
            throw .usage("--redis (HEADWAY_REDIS_URL): \(error.message)")
        }
        keys = Keys(prefix: try settings.value(Settings.redisPrefix))
        self.logger = logger ?? Logger(label: "headway.redis", factory: { _ in SwiftLogNoOpLogHandler() })
    }

    /// A client whose `run()` the caller must drive.
    /// - Parameter eventLoop: where all of its connections live; nil: on several.
    func client(on eventLoop: (any EventLoop)? = nil) -> RedisClient {
        RedisClient(configuration: configuration, eventLoopGroup: eventLoop ?? MultiThreadedEventLoopGroup.singleton, logger: logger)
    }

    /// What roles of this process share, on `client`.
    func context(_ client: RedisClient) -> RoleContext {
        RoleContext(store: JobStore(redis: client, keys: keys), redis: configuration, registry: MetricsRegistry(), logger: logger)
    }

    /// Runs `body` with a store.
    func read<Value: Sendable>(_ body: @Sendable @escaping (JobStore) async throws(StoreError) -> Value) async throws -> Value {
        let client = client()
        let store = JobStore(redis: client, keys: keys)
        return try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask {
                try await client.run()
                return nil
            }
            group.addTask {
                do throws(StoreError) {
                    return try await body(store)
                } catch {
                    throw Self.explain(error)
                }
            }
            defer { group.cancelAll() }
            while let value = try await group.next() {
                if let value { return value }
            }
            throw CommandError(.linkLost, "the connection to Redis ended")
        }
    }

    /// Says what to change about Redis.
    static func explain(_ error: StoreError) -> CommandError {
        switch error.code {
        case .unavailable: CommandError(.linkLost, "\(error.message) (--redis, HEADWAY_REDIS_URL)")
        case .invalid, .unknownQueue: CommandError(.usage, error.message)
        case .incompatible, .draining, .full, .conflict: CommandError(.failed, error.message)
        default: CommandError(.failed, "\(error)")
        }
    }
}
