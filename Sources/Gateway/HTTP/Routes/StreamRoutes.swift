import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry
import WebSocketWire

/// The routes that end in a stream: the connection stops being HTTP.
struct StreamRoutes: Sendable {
    let context: RouteContext

    var routes: [Route] {
        [
            Route(.GET, "/v1/jobs/{job}/events", registry: context.registry, .session(events)),
            Route(.GET, "/v1/events", registry: context.registry, .session(manyEvents)),
            Route(.GET, "/v1/ws", registry: context.registry, .session(webSocket)),
        ]
    }

    private func events(_ request: HTTPRequest) async throws -> SessionOutcome {
        try stream([try request.job()], isMulti: false, request)
    }

    private func manyEvents(_ request: HTTPRequest) async throws -> SessionOutcome {
        let names = request.queries("job")
        guard (1...context.limits.jobsPerStream).contains(names.count) else {
            throw GatewayError(.badRequest, "job: 1–\(context.limits.jobsPerStream) parameters job=ID are needed", field: "job")
        }
        var jobs: [JobID] = []
        for name in names {
            let job = try HTTPRequest.job(name)
            guard !jobs.contains(job) else { throw GatewayError(.badRequest, "job: \(job) is there twice", field: "job") }
            jobs.append(job)
        }
        return try stream(jobs, isMulti: true, request)
    }

    private func stream(_ jobs: [JobID], isMulti: Bool, _ request: HTTPRequest) throws -> SessionOutcome {
        // `EventSource` sends the header by itself on a reconnect; a page that starts with a cursor of its own has only the query.
        let cursor = request.headers.first(name: "last-event-id") ?? request.query("since")
        guard let requests = EventCursor.requests(for: jobs, lastEventID: cursor) else {
            throw GatewayError(.badRequest, "Last-Event-ID: not a cursor that this stream gave out", field: "Last-Event-ID")
        }
        // 204 is the one answer after which a browser's EventSource does not come back.
        if requests.allSatisfy(\.isEnd) { return .answer(HTTPResponse(status: 204)) }
        let (hub, principal, id, headers) = (context.hub, request.principal, connectionID(), Self.headers(request))
        return .takeOver {
            SSESession(hub: hub, principal: principal, requests: requests, isMulti: isMulti, connectionID: id, headers: headers)
        }
    }

    private func webSocket(_ request: HTTPRequest) async throws -> SessionOutcome {
        let headers = request.headers
        guard request.head.version.minor >= 1, headers[canonicalForm: "upgrade"].contains(where: { $0.lowercased() == "websocket" }),
            headers[canonicalForm: "connection"].contains(where: { $0.lowercased() == "upgrade" })
        else { throw GatewayError(.upgradeRequired, "this address speaks WebSocket: send an Upgrade: websocket request") }
        guard headers.first(name: "sec-websocket-version") == "13" else {
            throw GatewayError(.upgradeRequired, "Sec-WebSocket-Version: 13 is needed")
        }
        guard let key = headers.first(name: "sec-websocket-key"), WebSocketHandshake.isValidKey(key) else {
            throw GatewayError(.badRequest, "Sec-WebSocket-Key: 16 bytes in base64 are needed")
        }
        let (hub, principal, id, head) = (context.hub, request.principal, connectionID(), request.head)
        let extra = Self.headers(request)
        return .takeOver {
            WebSocketSession(hub: hub, principal: principal, requestHead: head, connectionID: id, headers: extra)
        }
    }

    /// A stream's id is ours alone; a request's may be the client's.
    private func connectionID() -> String { "c-" + String(context.environment.random(), radix: 36) }

    /// What every answer carries, for those that write their head themselves. Free of CR and LF: the origin was compared with a
    /// configured one or came out of NIO's parser, which refuses both.
    private static func headers(_ request: HTTPRequest) -> [(String, String)] {
        var headers = [("x-request-id", request.id), ("x-content-type-options", "nosniff")]
        if let origin = request.foreignOrigin { headers += [("access-control-allow-origin", origin), ("vary", "origin")] }
        return headers
    }
}
