import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry

/// New jobs: submitted, or tried again.
struct SubmitRoutes: Sendable {
    let context: RouteContext

    private var store: JobStore { context.store }

    var routes: [Route] {
        let limit = context.limits.jsonBytes
        return [
            Route(.POST, "/v1/jobs", registry: context.registry, .task(bodyLimit: limit, submit)),
            Route(.POST, "/v1/jobs/{job}/retry", registry: context.registry, .task(bodyLimit: limit, retry)),
        ]
    }

    // MARK: Submit

    private func submit(_ request: HTTPRequest) async throws -> HTTPResponse {
        try request.requireJSON()
        let body = try SubmitBody(request.body, limits: context.limits, nowMs: context.environment.nowMs())
        if body.children == nil || body.pipeline != SubmitBody.groupPipeline { try context.requirePipeline(body.pipeline) }
        if body.children == nil { try await context.queues.require(body.queue) }
        try await requireUploads(body.inputs)
        let outcome = try await store.submit(submission(of: body, request))
        return Self.answer(outcome, status: outcome.isNew ? 202 : 200)
    }

    /// `{"job":…,"state":…}`, with `retry_of` where it is one.
    private static func answer(_ outcome: SubmitOutcome, status: Int, retryOf: JobID? = nil) -> HTTPResponse {
        let job = outcome.head.job.text
        var answer = ByteBuffer(string: "{\"job\":\"\(job)\",")
        if let retryOf { answer.writeString("\"retry_of\":\"\(retryOf)\",") }
        answer.writeString("\"state\":")
        answer.writeImmutableBuffer(outcome.head.body)
        answer.writeString("}")
        var response = HTTPResponse.json(answer, status: status)
        response.add("location", "/v1/jobs/\(job)")
        return response
    }

    private func requireUploads(_ inputs: [SubmitBody.Input]) async throws {
        for input in inputs where try await context.blobs.upload(input.upload) == nil {
            throw GatewayError(
                .uploadNotFound,
                "\(input.field).upload: there is no such upload, or it has expired: upload the file again",
                field: input.field
            )
        }
    }

    private func submission(of body: SubmitBody, _ request: HTTPRequest) throws -> JobSubmission {
        var id = body.id ?? body.parent ?? context.environment.makeJobID()
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
        if body.id == nil { submission.childOf = body.parent }
        submission.children = body.children
        submission.prefer = body.prefer
        if let priority = body.priority { submission.priority = priority }
        if let delayMs = body.delayMs { submission.delayMs = delayMs }
        submission.expiresAtMs = body.expiresAtMs
        submission.maxAttempts = body.maxAttempts
        submission.maxRuntimeMs = body.maxRuntimeMs
        submission.ttlMs = body.ttlMs
        submission.jobClass = body.jobClass
        submission.isCold = body.isCold
        submission.planJSON = body.planJSON
        submission.traceparent = request.traceparent
        return submission
    }

    // MARK: Retry

    private func retry(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        let changed = try RetryBody(request, limits: context.limits)
        let found = try await store.snapshot(job, fields: ["owner", "phase", "queue", "children", "params"])
        guard let old = found, request.principal.mayView(old.owner) else { throw JobRoutes.notFound(job) }
        guard request.principal.mayChange(old.owner) else { throw GatewayError(.notAllowed, "this job is not yours to try again") }
        guard old.phase.isTerminal else {
            throw GatewayError(
                .conflict,
                "the job \(job) is \(old.phase.rawValue): only a job that has ended can be tried again; cancel it first"
            )
        }
        // Looked at before anything is noted on the old job.
        guard old.fields["children"] == nil else {
            throw GatewayError(.conflict, "the job \(job) is a group: submit a new one, or try its children again")
        }
        guard old.fields["queue"] != Keys.heldQueue else {
            throw GatewayError(.conflict, "the job \(job) had no queue: its producer opens a new one")
        }
        let inputs = try changed.inputs ?? RetryBody.inputs(ofStored: old.fields["params"] ?? "{}", limits: context.limits)
        try await requireUploads(inputs)
        let outcome = try await store.retry(job, successor: context.environment.makeJobID(), paramsJSON: changed.paramsJSON)
        return Self.answer(outcome, status: outcome.isNew ? 201 : 200, retryOf: job)
    }
}

/// The body of `POST /v1/jobs/J/retry`: `{"params":{…}}`, or nothing for the same once more.
struct RetryBody {
    var paramsJSON: String?
    /// Of the changed params; nil when they stay.
    var inputs: [SubmitBody.Input]?

    init(_ request: HTTPRequest, limits: GatewayLimits) throws(GatewayError) {
        guard request.body.readableBytes > 0 else { return }
        try request.requireJSON()
        try CheckedJSON(object: request.body, limits: limits).root.forEachPresentMember { (name, value) throws(GatewayError) in
            guard name == "params" else {
                throw GatewayError(.unknownField, "\(name.prefix(64)): unknown; known is params", field: String(name.prefix(64)))
            }
            inputs = try SubmitBody.inputs(ofParams: value, limits)
            paramsJSON = value.raw
        }
    }

    /// Params that were checked when the job was submitted, perhaps by somebody else than a gateway.
    static func inputs(ofStored params: String, limits: GatewayLimits) throws(GatewayError) -> [SubmitBody.Input] {
        guard let json = try? CheckedJSON(Array(params.utf8), maximumDepth: limits.jsonDepth) else { return [] }
        return try SubmitBody.inputs(ofParams: json.root, limits)
    }
}
