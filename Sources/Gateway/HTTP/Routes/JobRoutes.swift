import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry

/// Show, cancel, why, logs, preview.
struct JobRoutes: Sendable {
    let context: RouteContext

    private var store: JobStore { context.store }

    var routes: [Route] {
        [
            Route(.GET, "/v1/jobs/{job}", registry: context.registry, .task(bodyLimit: 0, show)),
            Route(.POST, "/v1/jobs/{job}/cancel", registry: context.registry, .task(bodyLimit: context.limits.jsonBytes, cancel)),
            Route(.GET, "/v1/jobs/{job}/logs", registry: context.registry, .task(bodyLimit: 0, logs)),
            Route(.GET, "/v1/jobs/{job}/why", registry: context.registry, .task(bodyLimit: 0, why)),
            Route(.GET, "/v1/jobs/{job}/preview", registry: context.registry, .task(bodyLimit: 0, preview)),
        ]
    }

    // MARK: Show

    private func show(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        let after = try request.integer("after", in: 0...Int.max)
        let waitMs = try request.integer("wait_ms", in: 0...context.limits.longPollMs)
        if after != nil || waitMs != nil { return try await poll(job, request, after: after ?? 0, waitMs: waitMs ?? 0) }
        let isFull = request.flag("full")
        let found = try await store.snapshot(job, fields: isFull ? JobSheet.allFields : JobSheet.fields)
        guard let snapshot = found, request.principal.mayView(snapshot.owner) else { throw Self.notFound(job) }
        // A waiting job also changes when those before it leave, and its wait by itself.
        let (place, outlook) = snapshot.phase == .queued ? try await waiting(job, snapshot.fields["queue"], snapshot.owner) : (nil, nil)
        // The body changes when seq does. After a failover Redis may count the same seq again for another change, at another time.
        var tag = "\"\(snapshot.seq)-\(snapshot.fields["updated_at"] ?? "0")"
        switch place {
        case .inLine(let ahead): tag += "-q\(ahead)"
        case .heldByTenantLimit(let ownAhead): tag += "-t\(ownAhead)"
        case .notDue: tag += "-d"
        case nil: break
        }
        switch outlook {
        case .wait(let ms, _, _): tag += "-\(ms)"
        case .unknown(let reason): tag += "-\(reason.rawValue)"
        case nil: break
        }
        // Noted after the end, without an event.
        if snapshot.fields["retried_as"] != nil { tag += "-r" }
        tag += isFull ? "-full\"" : "\""
        if request.headers[canonicalForm: "if-none-match"].contains(where: { $0 == tag || $0 == "W/\(tag)" || $0 == "*" }) {
            return HTTPResponse(status: 304, headers: [("etag", tag), ("cache-control", "no-cache")])
        }
        var response = HTTPResponse.json(JobSheet.text(snapshot, place: place, outlook: outlook, isFull: isFull))
        response.headers.removeAll { $0.name == "cache-control" }
        response.add("etag", tag)
        response.add("cache-control", "no-cache")
        return response
    }

    /// Where a job waits, and for how long.
    private func waiting(_ job: JobID, _ queue: String?, _ owner: Owner) async throws -> (JobPlace?, WaitOutlook?) {
        guard let queue, queue != Keys.heldQueue else { return (nil, nil) }
        // The place last, as the hub does.
        let frame = await context.hub.forecaster?.frame(queue)
        guard let place = try await store.places([PlaceQuestion(job: job, queue: queue, owner: owner)]).first ?? nil else {
            return (nil, nil)
        }
        return (place, WaitFrame.outlook(frame, at: place, partition: store.keys.partition(of: job)))
    }

    /// A state as a long-poll answers it: of a waiting job with its place.
    private func stated(_ job: JobID, _ state: ByteBuffer, _ head: JobHead) async throws -> ByteBuffer {
        guard head.phase == .queued, let queue = try await store.queueNames(of: [job]).first ?? nil else { return state }
        let (place, outlook) = try await waiting(job, queue, head.owner)
        guard let place, state.readableBytes > 2 else { return state }
        var spliced = state
        spliced = spliced.getSlice(at: spliced.readerIndex, length: spliced.readableBytes - 1) ?? spliced
        spliced.writeString(place.members + (outlook?.members ?? "") + "}")
        return spliced
    }

    private func poll(_ job: JobID, _ request: HTTPRequest, after: Int, waitMs: Int) async throws -> HTTPResponse {
        switch try await context.hub.poll(job, principal: request.principal, after: after, waitMs: waitMs) {
        case .found(let state, let head, let milestones):
            var answer = ByteBuffer(string: "{\"state\":")
            answer.writeImmutableBuffer(try await stated(job, state, head))
            answer.writeString(",\"events\":[")
            for (index, milestone) in milestones.enumerated() {
                if index > 0 { answer.writeString(",") }
                answer.writeImmutableBuffer(milestone)
            }
            answer.writeString("]}")
            var response = HTTPResponse.json(answer)
            response.isLongPoll = waitMs > 0
            return response
        case .gone: throw GatewayError(.gone, "the job \(job) existed and has expired")
        case .notFound: throw Self.notFound(job)
        case .unavailable: throw GatewayError(.unavailable, "Redis does not answer, or too many requests wait", retryAfterSeconds: 2)
        }
    }

    static func notFound(_ job: JobID) -> GatewayError {
        GatewayError(.jobNotFound, "there is no job \(job): it was never submitted, has expired, or is somebody else's")
    }

    // MARK: Cancel

    private func cancel(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        let reason = try Self.reason(request, limits: context.limits)
        guard let head = try await store.heads([job]).first ?? nil, request.principal.mayView(head.owner) else { throw Self.notFound(job) }
        guard request.principal.mayChange(head.owner) else { throw GatewayError(.notAllowed, "this job is not yours to cancel") }
        let outcome: String
        switch try await store.cancel(job, by: request.principal.owner.text, reason: reason) {
        case .absent: throw Self.notFound(job)
        case .cancelled: outcome = "\"cancelled\""
        case .requested(let isFirst): outcome = "\"requested\",\"first\":\(isFirst)"
        case .alreadyEnded(let phase): outcome = "\"already_ended\",\"phase\":\"\(phase.rawValue)\""
        }
        return .json("{\"job\":\"\(job)\",\"outcome\":\(outcome)}")
    }

    private static func reason(_ request: HTTPRequest, limits: GatewayLimits) throws(GatewayError) -> String? {
        guard request.body.readableBytes > 0 else { return nil }
        try request.requireJSON()
        var reason: String?
        try CheckedJSON(object: request.body, limits: limits).root.forEachPresentMember { (name, value) throws(GatewayError) in
            guard name == "reason" else {
                throw GatewayError(.unknownField, "\(name.prefix(64)): unknown; known is reason", field: String(name.prefix(64)))
            }
            guard let text = value.string else { throw value.wrongType("reason", .string) }
            guard text.utf8.count <= StoreLimits.textBytes else {
                throw GatewayError(.invalidValue, "reason: at most \(StoreLimits.textBytes) bytes", field: "reason")
            }
            reason = text
        }
        return reason
    }

    // MARK: Side channels

    /// Why it is where it is.
    private func why(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        guard let diagnosis = try await store.why(job), request.principal.mayView(diagnosis.owner) else { throw Self.notFound(job) }
        return .json(diagnosis.json)
    }

    private func logs(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        let limit = try request.integer("limit", in: 1...context.limits.logLines) ?? context.limits.logLinesDefault
        try await requireView(job, request)
        let lines = try await store.logs(job, limit: limit).map {
            "{\"at\":\($0.atMs),\"stream\":\(JSONText.quoted($0.stream)),\"text\":\(JSONText.quoted($0.text))}"
        }
        return .json("{\"job\":\"\(job)\",\"lines\":[\(lines.joined(separator: ","))]}")
    }

    private func preview(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        try await requireView(job, request)
        guard let (image, contentType) = try await store.preview(job) else {
            throw GatewayError(.fileNotFound, "the job \(job) has no preview")
        }
        return HTTPResponse(
            status: 200,
            headers: [("content-type", contentType), ("cache-control", "no-cache")],
            body: .bytes(image)
        )
    }

    private func requireView(_ job: JobID, _ request: HTTPRequest) async throws {
        guard let head = try await store.heads([job]).first ?? nil, request.principal.mayView(head.owner) else { throw Self.notFound(job) }
    }
}
