import NIOCore
import NIOHTTP1
import Telemetry

/// What a session route decided.
enum SessionOutcome: Sendable {
    case answer(HTTPResponse)
    /// The connection stops being HTTP: `make` is called on its event loop, and its handler gets the raw bytes.
    case takeOver(make: @Sendable () -> any ChannelHandler)
}

/// What is done with a request that matched.
enum RouteAction: Sendable {
    /// Answered on the event loop at once: must not wait for anything.
    case immediate(@Sendable (HTTPRequest) throws -> HTTPResponse)
    /// Runs in a task of its own once the whole body, at most `bodyLimit` bytes, is there.
    case task(bodyLimit: Int, @Sendable (HTTPRequest) async throws -> HTTPResponse)
    /// Runs in a task of its own from the head on and takes the body piece by piece.
    case streamed(@Sendable (HTTPRequest, RequestBody) async throws -> HTTPResponse)
    /// Server-Sent Events and WebSocket.
    case session(@Sendable (HTTPRequest) async throws -> SessionOutcome)

    var bodyLimit: Int {
        if case .task(let limit, _) = self { limit } else { 0 }
    }
}

/// One line of the route table.
final class Route: Sendable {
    enum Segment: Sendable, Hashable {
        case literal(String)
        case parameter(String)
    }

    let method: HTTPMethod
    /// As in the documentation: `/v1/jobs/{job}`. Also the metrics' label.
    let pattern: String
    let segments: [Segment]
    let action: RouteAction
    let metrics: RouteMetrics

    init(_ method: HTTPMethod, _ pattern: String, registry: MetricsRegistry, _ action: RouteAction) {
        self.method = method
        self.pattern = pattern
        self.segments = pattern.split(separator: "/").map { part in
            part.hasPrefix("{") ? .parameter(String(part.dropFirst().dropLast())) : .literal(String(part))
        }
        self.action = action
        self.metrics = RouteMetrics(route: "\(method.rawValue) \(pattern)", registry: registry)
    }
}

/// Counters of one route, made once: an answer costs two atomic adds.
final class RouteMetrics: Sendable {
    private let classes: [Counter]
    private let duration: Histogram

    init(route: String, registry: MetricsRegistry) {
        classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map { registry.counter(.httpRequests, labels: ["route": route, "class": $0]) }
        duration = registry.histogram(.httpDuration, labels: ["route": route])
    }

    func answered(status: Int, microseconds: Int?) {
        classes[max(0, min(4, status / 100 - 1))].increment()
        if let microseconds { duration.record(microseconds: microseconds) }
    }
}

/// The table of routes.
struct Router: Sendable {
    enum Match: Sendable {
        case route(Route, parameters: [String: String])
        /// The path exists for other methods: the value of `Allow`.
        case methodNotAllowed(allow: String)
        case notFound
    }

    /// By number of segments: most requests are compared with a handful of patterns.
    private var table: [Int: [Route]] = [:]

    init(_ routes: [Route]) {
        for route in routes { table[route.segments.count, default: []].append(route) }
    }

    func match(_ method: HTTPMethod, _ path: [String]) -> Match {
        var allowed: [String] = []
        for route in table[path.count] ?? [] {
            guard let parameters = Self.parameters(of: path, in: route.segments) else { continue }
            if route.method == method { return .route(route, parameters: parameters) }
            if route.method == .GET, method == .HEAD, route.allowsHead { return .route(route, parameters: parameters) }
            allowed.append(route.method.rawValue)
            if route.method == .GET, route.allowsHead { allowed.append("HEAD") }
        }
        guard !allowed.isEmpty else { return .notFound }
        return .methodNotAllowed(allow: (allowed + ["OPTIONS"]).joined(separator: ", "))
    }

    private static func parameters(of path: [String], in segments: [Route.Segment]) -> [String: String]? {
        var parameters: [String: String] = [:]
        for (segment, text) in zip(segments, path) {
            switch segment {
            case .literal(let literal): if literal != text { return nil }
            case .parameter(let name): parameters[name] = text
            }
        }
        return parameters
    }
}

extension Route {
    /// A stream has no head of its own.
    fileprivate var allowsHead: Bool {
        if case .session = action { false } else { true }
    }
}
