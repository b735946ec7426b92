import JobStore
import Logging
import NIOCore
import NIOHTTP1
import Synchronization
import Telemetry

/// What all connections of one gateway share.
final class HTTPService: Sendable {
    let router: Router
    let limits: GatewayLimits
    let hostPolicy: HostPolicy
    let writer: ResponseWriter
    let ids: RequestIDs
    let logger: Logger
    let metrics: HTTPMetrics
    let connections: ConnectionRegistry
    private let draining = Atomic<Bool>(false)

    init(
        router: Router,
        limits: GatewayLimits,
        hostPolicy: HostPolicy,
        environment: GatewayEnvironment,
        registry: MetricsRegistry,
        logger: Logger
    ) {
        self.router = router
        self.limits = limits
        self.hostPolicy = hostPolicy
        self.writer = ResponseWriter(nowMs: environment.nowMs)
        self.ids = RequestIDs(prefix: environment.random())
        self.logger = logger
        let metrics = HTTPMetrics(registry: registry)
        self.metrics = metrics
        self.connections = ConnectionRegistry(limit: limits.connections, metrics: metrics)
    }

    /// Makes an accepted channel one of ours, or throws when there are too many: then it is closed.
    func configure(_ channel: any Channel) throws {
        guard connections.admit(channel) else { throw GatewayError(.tooManyRequests, "too many connections") }
        let decoder = RequestDecoder(limits: limits)
        try channel.pipeline.syncOperations.addHandlers([
            ByteToMessageHandler(decoder), HTTPConnectionHandler(service: self, decoder: decoder),
        ])
    }

    /// From now on every answer is the last of its connection.
    var isDraining: Bool { draining.load(ordering: .relaxed) }

    func startDraining() { draining.store(true, ordering: .relaxed) }

    /// Who sent a request. There are no credentials yet: everybody is anonymous and sees what anonymous submitted.
    func principal(of head: HTTPRequestHead) -> Principal { .anonymous }

    /// What an error says to the client; what only we should know goes to the log.
    func refusal(for error: any Error, requestID: String) -> GatewayError {
        switch error {
        case let error as GatewayError: return error
        case let error as StoreError:
            if error.code == .corrupt {
                logger.error(
                    "redis answered something unexpected",
                    metadata: [LogKey.requestID: "\(requestID)", LogKey.errorMessage: "\(error.message)"]
                )
            }
            return GatewayError(error)
        case is CancellationError:
            return GatewayError(.draining, "the gateway stops: repeat the request", retryAfterSeconds: 1)
        default:
            logger.error(
                "request failed",
                metadata: [LogKey.requestID: "\(requestID)", LogKey.errorMessage: "\(String(reflecting: error))"]
            )
            return GatewayError(.internalError, "the request failed; the gateway's log says why under this request_id")
        }
    }
}

/// Ids of requests: a random prefix per process and a counter, unique without a look at the clock.
final class RequestIDs: Sendable {
    private let prefix: String
    private let counter = Atomic<UInt64>(0)

    init(prefix: UInt64) { self.prefix = String(GatewayEnvironment.hex(prefix).prefix(10)) }

    func next() -> String { "\(prefix)-\(counter.wrappingAdd(1, ordering: .relaxed).newValue)" }

    /// The client's own `X-Request-Id` when it is one we would put into a log and a header: `[A-Za-z0-9._-]{1,64}`.
    func id(for head: HTTPRequestHead) -> String {
        guard let given = head.headers.first(name: "x-request-id"), (1...64).contains(given.utf8.count),
            given.utf8.allSatisfy(Self.isPlain)
        else { return next() }
        return given
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }
}

/// The HTTP side's metrics that belong to no route.
struct HTTPMetrics: Sendable {
    let connections: Gauge
    let accepted: Counter
    let refused: Counter
    let timeouts: Counter
    let malformed: Counter
    let uploaded: Counter
    let served: Counter
    /// Requests for paths that do not exist share one label, so that nobody mints series.
    let unknownRoute: RouteMetrics

    init(registry: MetricsRegistry) {
        connections = registry.gauge(.httpConnections)
        accepted = registry.counter(.httpConnectionsTotal)
        refused = registry.counter(.httpConnectionsRefused)
        timeouts = registry.counter(.httpTimeouts)
        malformed = registry.counter(.httpMalformed)
        uploaded = registry.counter(.uploadedBytes)
        served = registry.counter(.servedBytes)
        unknownRoute = RouteMetrics(route: "none", registry: registry)
    }
}
