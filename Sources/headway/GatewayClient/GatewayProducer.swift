import FoundationEssentials
import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import WorkerRuntime

/// The progress of a job that no queue knows, written through a gateway: for machines that do not reach Redis.
///
/// Every call is one `POST /v1/jobs/J/progress` (docs/protocol.md, *Producers*). A preview has no place in it and is left out.
struct GatewayProducer: ProducerStore {
    let client: GatewayClient
    /// How long the gateway is told to wait for the next sign of life; several times the heartbeat, since HTTP may take a detour.
    private static let leaseMs = 30_000

    var heartbeatInterval: Duration { .milliseconds(Self.leaseMs / 4) }

    // MARK: Bodies and answers

    private struct Body: Encodable {
        struct Opening: Encodable {
            let pipeline, nonce, producer: String
            let ttlMs, maxRuntimeMs: Int?
            let jobClass: String?

            enum CodingKeys: String, CodingKey {
                case pipeline, nonce, producer
                case ttlMs = "ttl_ms"
                case maxRuntimeMs = "max_runtime_ms"
                case jobClass = "class"
            }
        }

        struct Failure: Encodable {
            let code, message: String
            let recoverable: Bool
        }

        struct Line: Encodable {
            let stream, text: String
        }

        var open: Opening?
        var write: Int?
        var leaseMs: Int?
        var phase: String?
        /// Named as they are on the wire, where the second is an `s`.
        var percent, phasePercent, percentPerS: Double?
        var stage: String?
        var stagePercent: Double?
        var step, steps, item, items: Int?
        var message: String?
        var etaMs, etaLowMs, etaHighMs: Int?
        var stalled: Bool?
        var quietMs: Int?
        var log: [Line]?
        var error: Failure?
    }

    private struct Reply: Decodable {
        struct Cancel: Decodable {
            let by: String
            let reason: String?
        }

        let token: String?
        let seq: Int?
        let clamped: Bool?
        let cancel: Cancel?

        var request: CancelRequest? { cancel.map { CancelRequest(by: $0.by, reason: $0.reason) } }
    }

    /// Nil: the job is not this producer's, or not any more.
    private func post(_ job: JobID, token: String?, _ body: Body, resultJSON: String? = nil) async throws(StoreError) -> Reply? {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        guard let data = try? encoder.encode(body) else { throw StoreError(.invalid, "a number of the progress is not finite") }
        var json = String(decoding: data, as: UTF8.self)
        if let resultJSON { json = "\(json.dropLast())\(json == "{}" ? "" : ",")\"result\":\(resultJSON)}" }
        let answer: GatewayClient.Answer
        do throws(CommandError) {
            let headers = token.map { [("headway-write-token", $0)] } ?? []
            answer = try await client.request(.POST, "/v1/jobs/\(job.text)/progress", json: json, headers: headers)
        } catch {
            if error.code == .usage { throw StoreError(.invalid, error.message) }
            throw StoreError(.unavailable, error.message, mayHaveRun: true)
        }
        if (200..<300).contains(answer.status) {
            guard let reply = try? JSONDecoder().decode(Reply.self, from: Data(answer.body.utf8)) else {
                throw StoreError(.unavailable, "\(client.baseURL) does not answer as a gateway does", mayHaveRun: true)
            }
            return reply
        }
        if answer.status == 409, token != nil { return nil }
        let message = client.refusal(answer, of: "the gateway at \(client.baseURL)").message
        switch answer.status {
        case 409: throw StoreError(.conflict, message)
        case 408, 429, 500...: throw StoreError(.unavailable, message)
        default: throw StoreError(.invalid, message)
        }
    }

    private static func status(_ reply: Reply?) -> LeaseStatus {
        guard let reply else { return .lost }
        return reply.request.map { .cancelRequested($0) } ?? .held
    }

    // MARK: The verbs

    func openJob(_ job: ProducerSubmission) async throws(StoreError) -> Lease {
        let opening = Body.Opening(
            pipeline: job.pipeline,
            nonce: job.nonce,
            producer: job.producer,
            ttlMs: job.ttlMs,
            maxRuntimeMs: job.maxRuntimeMs,
            jobClass: job.jobClass
        )
        guard let token = try await post(job.id, token: nil, Body(open: opening, leaseMs: Self.leaseMs))?.token else {
            throw StoreError(.unavailable, "\(client.baseURL) does not answer as a gateway does", mayHaveRun: true)
        }
        return Lease(job: job.id, queue: Keys.heldQueue, fence: token, worker: job.producer)
    }

    func heartbeat(_ lease: Lease) async throws(StoreError) -> LeaseStatus {
        Self.status(try await post(lease.job, token: lease.fence, Body(leaseMs: Self.leaseMs)))
    }

    func advance(_ lease: Lease, write: Int, to state: ProgressState, quietMs: Int) async throws(StoreError) -> AdvanceOutcome {
        let body = Body(
            write: write,
            leaseMs: Self.leaseMs,
            phase: state.phase.rawValue,
            percent: state.percent,
            phasePercent: state.phasePercent,
            percentPerS: state.percentPerSecond,
            stage: state.stage ?? "",
            stagePercent: state.stagePercent,
            step: state.step,
            steps: state.steps,
            item: state.item,
            items: state.items,
            message: state.message ?? "",
            etaMs: state.isEstimating ? nil : state.etaMs,
            etaLowMs: state.isEstimating ? nil : state.etaLowMs,
            etaHighMs: state.isEstimating ? nil : state.etaHighMs,
            stalled: state.isStalled,
            quietMs: quietMs
        )
        guard let reply = try await post(lease.job, token: lease.fence, body) else { return .lost }
        return .accepted(seq: reply.seq ?? 0, wasClamped: reply.clamped ?? false, cancel: reply.request)
    }

    func appendLog(_ lease: Lease, write: Int?, _ lines: [LogLine], droppedBefore: Int) async throws(StoreError) -> LeaseStatus {
        var body = Body(write: write, leaseMs: Self.leaseMs, log: lines.map { .init(stream: $0.stream, text: $0.text) })
        if droppedBefore > 0, body.log?.isEmpty ?? true {
            body.log = [.init(stream: "headway", text: "\(droppedBefore) lines of output were left out")]
        }
        return Self.status(try await post(lease.job, token: lease.fence, body))
    }

    func setPreview(_ lease: Lease, image: ByteBuffer, contentType: String) async throws(StoreError) -> LeaseStatus { .held }

    func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)]
    ) async throws(StoreError) -> FinishStatus {
        let phase = end == .complete ? Phase.complete : .cancelled
        let result = end == .complete ? resultJSON : nil
        return try await post(lease.job, token: lease.fence, Body(phase: phase.rawValue), resultJSON: result) == nil ? .lost : .done
    }

    func fail(_ lease: Lease, error: JobError, stagesMs: [(stage: String, ms: Int)]) async throws(StoreError) -> FailStatus {
        let failure = Body.Failure(code: error.code, message: error.message, recoverable: error.isRecoverable)
        let body = Body(phase: Phase.failed.rawValue, error: failure)
        return try await post(lease.job, token: lease.fence, body) == nil ? .lost : .dead
    }
}
