import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry

/// Submit, show, cancel, logs, preview.
struct JobRoutes: Sendable {
    let context: RouteContext

    private var store: JobStore { context.store }

    var routes: [Route] {
        [
            Route(.POST, "/v1/jobs", registry: context.registry, .task(bodyLimit: context.limits.jsonBytes, submit)),
            Route(.GET, "/v1/jobs/{job}", registry: context.registry, .task(bodyLimit: 0, show)),
            Route(.POST, "/v1/jobs/{job}/cancel", registry: context.registry, .task(bodyLimit: context.limits.jsonBytes, cancel)),
            Route(.GET, "/v1/jobs/{job}/logs", registry: context.registry, .task(bodyLimit: 0, logs)),
            Route(.GET, "/v1/jobs/{job}/preview", registry: context.registry, .task(bodyLimit: 0, preview)),
        ]
    }

    // MARK: Submit

    private func submit(_ request: HTTPRequest) async throws -> HTTPResponse {
        try Self.requireJSON(request)
        let body = try SubmitBody(request.body, limits: context.limits, nowMs: context.environment.nowMs())
        guard context.pipelines.contains(where: { $0.name == body.pipeline }) else {
            let known = context.pipelines.map(\.name).joined(separator: ", ")
            throw GatewayError(.unknownPipeline, "there is no pipeline '\(body.pipeline)'; there are: \(known)", field: "pipeline")
        }
        try await context.queues.require(body.queue)
        for input in body.inputs where try await context.blobs.upload(input.upload) == nil {
            throw GatewayError(
                .uploadNotFound,
                "\(input.field).upload: there is no such upload, or it has expired: upload the file again",
                field: input.field
            )
        }
        let outcome = try await store.submit(submission(of: body, request))
        let job = outcome.head.job.text
        var answer = ByteBuffer(string: "{\"job\":\"\(job)\",\"state\":")
        answer.writeImmutableBuffer(outcome.head.body)
        answer.writeString("}")
        var response = HTTPResponse.json(answer, status: outcome.isNew ? 202 : 200)
        response.add("location", "/v1/jobs/\(job)")
        return response
    }

    private func submission(of body: SubmitBody, _ request: HTTPRequest) throws -> JobSubmission {
        var id = body.id ?? context.environment.makeJobID()
        if let key = body.idempotencyKey {
            // The key alone decides the id, so two submits with one key meet in one script.
            let digest = Digest.sha256(request.principal.owner.text + "\n" + key)
            id = try HTTPRequest.job("k-" + digest.prefix(40))
        }
        var submission = JobSubmission(
            id: id,
            queue: body.queue,
            pipeline: body.pipeline,
            owner: request.principal.owner,
            paramsJSON: body.paramsJSON
        )
        submission.isIdempotent = body.idempotencyKey != nil
        if let priority = body.priority { submission.priority = priority }
        if let delayMs = body.delayMs { submission.delayMs = delayMs }
        submission.expiresAtMs = body.expiresAtMs
        submission.maxAttempts = body.maxAttempts
        submission.maxRuntimeMs = body.maxRuntimeMs
        submission.ttlMs = body.ttlMs
        submission.jobClass = body.jobClass
        submission.isCold = body.isCold
        submission.planJSON = body.planJSON
        submission.traceparent = request.headers.first(name: "traceparent").flatMap(Self.traceparent)
        return submission
    }

    /// W3C Trace Context, version 00; anything else is not passed on.
    private static func traceparent(_ text: String) -> String? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.map(\.utf8.count) == [2, 32, 16, 2],
            text.utf8.allSatisfy({ $0 == UInt8(ascii: "-") || JSONChecker.hexDigit($0) != nil })
        else { return nil }
        return text
    }

    /// A body that a page of another site could send without asking (a form) is not taken for JSON.
    private static func requireJSON(_ request: HTTPRequest) throws(GatewayError) {
        let type = (request.headers.first(name: "content-type") ?? "").lowercased()
        guard type == "application/json" || type.hasPrefix("application/json;") else {
            throw GatewayError(.unsupportedMediaType, "Content-Type: application/json is needed")
        }
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
        // A waiting job also changes when those before it leave.
        let ahead = snapshot.phase == .queued ? try await store.position(job, queue: snapshot.fields["queue"] ?? "") : nil
        // The body changes when seq does. After a failover Redis may count the same seq again for another change, at another time.
        let place = ahead.map { "-q\($0)" } ?? ""
        let tag = "\"\(snapshot.seq)-\(snapshot.fields["updated_at"] ?? "0")\(place)\(isFull ? "-full" : "")\""
        if request.headers[canonicalForm: "if-none-match"].contains(where: { $0 == tag || $0 == "W/\(tag)" || $0 == "*" }) {
            return HTTPResponse(status: 304, headers: [("etag", tag), ("cache-control", "no-cache")])
        }
        var response = HTTPResponse.json(JobSheet.text(snapshot, ahead: ahead, isFull: isFull))
        response.headers.removeAll { $0.name == "cache-control" }
        response.add("etag", tag)
        response.add("cache-control", "no-cache")
        return response
    }

    private func poll(_ job: JobID, _ request: HTTPRequest, after: Int, waitMs: Int) async throws -> HTTPResponse {
        switch try await context.hub.poll(job, principal: request.principal, after: after, waitMs: waitMs) {
        case .found(let state, _, let milestones):
            var answer = ByteBuffer(string: "{\"state\":")
            answer.writeImmutableBuffer(state)
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
        try requireJSON(request)
        let json: CheckedJSON
        do {
            json = try CheckedJSON(Array(request.body.readableBytesView), maximumDepth: limits.jsonDepth)
        } catch {
            throw GatewayError(.malformedJSON, "the body is not JSON: \(error.message) at byte \(error.offset)")
        }
        guard json.root.kind == .object else { throw GatewayError(.wrongType, "the body must be a JSON object") }
        var reason: String?
        try json.root.forEachMember { (name, value) throws(GatewayError) in
            guard name == "reason" else {
                throw GatewayError(.unknownField, "\(name.prefix(64)): unknown; known is reason", field: String(name.prefix(64)))
            }
            if value.kind == .null { return }
            guard let text = value.string else { throw GatewayError(.wrongType, "reason: string needed", field: "reason") }
            guard text.utf8.count <= StoreLimits.textBytes else {
                throw GatewayError(.invalidValue, "reason: at most \(StoreLimits.textBytes) bytes", field: "reason")
            }
            reason = text
        }
        return reason
    }

    // MARK: Side channels

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
