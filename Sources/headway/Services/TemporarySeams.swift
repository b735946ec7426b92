import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink
import ServiceLifecycle
import Telemetry

struct GatewayConfiguration: Sendable {
    var host = "127.0.0.1"
    var port = 0
    var dataDirectory = ""
    var pipelines: [Pipeline] = []
    var allowAnyQueue = false
    var drainWindow: Duration = .seconds(5)
    var allowedHosts: [String] = []
    var allowedOrigins: [String] = []
    var isInsecure = false
}
final class GatewayServer: Service {
    init(
        configuration: GatewayConfiguration,
        store: JobStore,
        redis: RedisConfiguration,
        registry: MetricsRegistry,
        group: any EventLoopGroup,
        logger: Logger
    ) {}
    func run() async throws {}
    func waitUntilListening() async throws -> SocketAddress { throw CommandError(.failed, "stub") }
}
struct WorkerConfiguration: Sendable {
    var name = ""
    var queues: [String] = []
    var concurrency = 1
    var pipeline = ""
    var gatewayURL = ""
    var workDirectory = ""
    var updatesPerSecond = 4.0
    var shutdownGrace: Duration = .seconds(30)
    var maxRuntime: Duration = .seconds(86400)
    var version = ""
}
protocol GeneratorBackend: Sendable {}
struct SubprocessBackend: GeneratorBackend { init(command: [String], grace: Duration) {} }
final class Worker: Service {
    init(
        configuration: WorkerConfiguration,
        store: JobStore,
        redis: RedisConfiguration,
        pipelines: [Pipeline],
        backend: any GeneratorBackend,
        registry: MetricsRegistry,
        group: any EventLoopGroup,
        logger: Logger
    ) {}
    func run() async throws {}
}
