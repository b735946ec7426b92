import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry

/// Progress over HTTP: for producers without a queue, and for whoever holds a job's lease.
///
/// The write token proves the right to write; who does not have it is told the same for a job that exists and one that does not.
struct ProgressRoutes: Sendable {
    let context: RouteContext
    private let limiter: IngestLimiter

    /// The store, with the lease that the producer asks for.
    private func store(_ body: ProgressBody) -> JobStore {
        guard let leaseMs = body.leaseMs else { return context.store }
        var settings = context.store.settings
        settings.lease = .milliseconds(leaseMs)
        return JobStore(redis: context.store.redis, keys: context.store.keys, settings: settings)
    }

    init(context: RouteContext) {
        self.context = context
        limiter = IngestLimiter(limits: context.limits)
    }

    var routes: [Route] {
        [Route(.POST, "/v1/jobs/{job}/progress", registry: context.registry, .task(bodyLimit: context.limits.jsonBytes, take))]
    }

    private func take(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        guard let token = request.headers.first(name: "headway-write-token") ?? request.headers.first(name: "headway-fence") else {
            return try await open(job, request)
        }
        guard (1...StoreLimits.nameBytes).contains(token.utf8.count) else { throw Self.lost(job) }
        try limiter.admitReport(job, token: token)
        let body = try ProgressBody(request, limits: context.limits)
        guard body.opening == nil else {
            throw GatewayError(.invalidValue, "open: the job is open already: send its token, or open, not both", field: "open")
        }
        let lease = Lease(job: job, queue: Keys.heldQueue, fence: token, worker: "")
        let store = store(body)
        // Before the end, which takes the token away.
        if !body.log.isEmpty, try await store.appendLog(lease, write: body.write, body.log, droppedBefore: 0) == .lost {
            throw Self.lost(job)
        }
        if let phase = body.end { return try await end(lease, as: phase, body) }
        return try await report(lease, body, store)
    }

    private static func lost(_ job: JobID) -> GatewayError {
        GatewayError(.leaseLost, "the job \(job) is not this token's, or not any more: stop its work")
    }

    // MARK: Open

    private func open(_ job: JobID, _ request: HTTPRequest) async throws -> HTTPResponse {
        try limiter.admitOpen(request.principal.owner)
        let body = try ProgressBody(request, limits: context.limits)
        guard let opening = body.opening else {
            throw GatewayError(.notAllowed, "Headway-Write-Token: the token that opening the job gave is needed; or open it with \"open\"")
        }
        try context.requirePipeline(opening.pipeline)
        var submission = ProducerSubmission(
            id: job,
            pipeline: opening.pipeline,
            owner: request.principal.owner,
            nonce: opening.nonce,
            producer: opening.producer
        )
        submission.paramsJSON = opening.paramsJSON
        submission.ttlMs = opening.ttlMs
        submission.maxRuntimeMs = opening.maxRuntimeMs
        submission.jobClass = opening.jobClass
        submission.traceparent = request.traceparent
        let store = store(body)
        let outcome = try await store.open(submission)
        var seq = outcome.seq
        if !body.log.isEmpty, outcome.isNew { _ = try await store.appendLog(outcome.lease, write: nil, body.log, droppedBefore: 0) }
        // Always the first write: when the opening is repeated, whatever was reported meanwhile is newer.
        if body.hasReport, case .accepted(let newest, _, _) = try await store.report(outcome.lease, write: 1, body.report) { seq = newest }
        var response = HTTPResponse.json(
            "{\"job\":\"\(job)\",\"token\":\(JSONText.quoted(outcome.lease.fence)),\"seq\":\(seq),\"lease_ms\":\(store.settings.lease.wholeMilliseconds)}",
            status: outcome.isNew ? 201 : 200
        )
        response.add("location", "/v1/jobs/\(job)")
        return response
    }

    // MARK: Report

    private func report(_ lease: Lease, _ body: ProgressBody, _ store: JobStore) async throws -> HTTPResponse {
        let leaseMs = store.settings.lease.wholeMilliseconds
        guard body.hasReport else {
            switch try await store.heartbeat(lease) {
            case .lost: throw Self.lost(lease.job)
            case .held: return Self.answer(cancel: nil, leaseMs: leaseMs)
            case .cancelRequested(let cancel): return Self.answer(cancel: cancel, leaseMs: leaseMs)
            }
        }
        switch try await store.report(lease, write: body.write, body.report) {
        case .lost: throw Self.lost(lease.job)
        case .accepted(let seq, let wasClamped, let cancel):
            return Self.answer("\"seq\":\(seq),\"clamped\":\(wasClamped),", cancel: cancel, leaseMs: leaseMs)
        }
    }

    private static func answer(_ members: String = "", cancel: CancelRequest?, leaseMs: Int) -> HTTPResponse {
        let request = cancel.map { cancel in
            "{\"by\":\(JSONText.quoted(cancel.by))" + (cancel.reason.map { ",\"reason\":\(JSONText.quoted($0))" } ?? "") + "}"
        }
        return .json("{\(members)\"cancel\":\(request ?? "null"),\"lease_ms\":\(leaseMs)}")
    }

    // MARK: End

    /// Repeating an end is harmless; its answer is what became of the job: a failed attempt may be followed by the next, and a
    /// failure after a cancel is that cancel's end.
    private func end(_ lease: Lease, as phase: Phase, _ body: ProgressBody) async throws -> HTTPResponse {
        let store = context.store
        if phase == .failed, let error = body.error {
            guard try await store.fail(lease, error: error, stagesMs: []) != .lost else { throw Self.lost(lease.job) }
        } else {
            let outcome: FinishOutcome = phase == .complete ? .complete : .cancelled
            guard try await store.finish(lease, as: outcome, resultJSON: body.resultJSON, stagesMs: []) == .done else {
                throw Self.lost(lease.job)
            }
        }
        var answer = ByteBuffer(string: "{\"job\":\"\(lease.job)\"")
        if let head = try await store.heads([lease.job]).first ?? nil {
            answer.writeString(",\"state\":")
            answer.writeImmutableBuffer(head.body)
        }
        answer.writeString("}")
        return .json(answer)
    }
}
