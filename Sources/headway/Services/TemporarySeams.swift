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
    var isInsecure = false
    var allowedHosts: [String] = []
    var allowedOrigins: [String] = []
    var drainWindow: Duration = .seconds(5)
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
