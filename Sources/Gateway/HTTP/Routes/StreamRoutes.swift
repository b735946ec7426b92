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
        let (hub, principal, id) = (context.hub, request.principal, request.id)
        return .takeOver { SSESession(hub: hub, principal: principal, requests: requests, isMulti: isMulti, connectionID: id) }
    }

    private func webSocket(_ request: HTTPRequest) async throws -> SessionOutcome {
        let headers = request.headers
        guard headers[canonicalForm: "upgrade"].contains(where: { $0.lowercased() == "websocket" }),
            headers[canonicalForm: "connection"].contains(where: { $0.lowercased() == "upgrade" })
        else { throw GatewayError(.upgradeRequired, "this address speaks WebSocket: send an Upgrade: websocket request") }
        guard headers.first(name: "sec-websocket-version") == "13" else {
            throw GatewayError(.upgradeRequired, "Sec-WebSocket-Version: 13 is needed")
        }
        guard let key = headers.first(name: "sec-websocket-key"), WebSocketHandshake.isValidKey(key) else {
            throw GatewayError(.badRequest, "Sec-WebSocket-Key: 16 bytes in base64 are needed")
        }
        let (hub, principal, id, head) = (context.hub, request.principal, request.id, request.head)
        return .takeOver { WebSocketSession(hub: hub, principal: principal, requestHead: head, connectionID: id) }
    }
}
