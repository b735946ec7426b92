import NIOCore
public import ProgressCore
import RedisLink

/// Verbs of those who submit and cancel.
extension JobStore {
    /// Creates a job, or finds that the very same submit happened before.
    ///
    /// Repeating it after a lost reply is safe: the id decides.
    /// With `childOf` the job becomes the group's next child; the outcome's head has its id.
    /// Submits of one queue that come while others are under way go to Redis together; each has its own outcome.
    /// - Throws: `.conflict` when the id belongs to another job, `.gone` when an idempotency key's job has expired, `.full`, `.draining`,
    ///   `.unknownGroup`,
    ///   `.invalid`, `.unavailable`.
    public func submit(_ job: JobSubmission) async throws(StoreError) -> SubmitOutcome {
        let ticket = try enqueue(job)
        return try outcome(of: job, await ticket.answer.get())
    }

    /// Creates several jobs, in their order; those of one queue and partition go to Redis together.
    ///
    /// - Returns: for each what ``submit(_:)-(JobSubmission)`` returns or throws.
    public func submit(_ jobs: [JobSubmission]) async -> [Result<SubmitOutcome, StoreError>] {
        let tickets = jobs.map { job in Result { () throws(StoreError) in try enqueue(job) } }
        var outcomes: [Result<SubmitOutcome, StoreError>] = []
        for (job, ticket) in zip(jobs, tickets) {
            do throws(StoreError) {
                outcomes.append(.success(try outcome(of: job, await ticket.get().answer.get())))
            } catch {
                outcomes.append(.failure(error))
            }
        }
        return outcomes
    }

    /// Puts the job in the line of those that are to be sent.
    private func enqueue(_ job: JobSubmission) throws(StoreError) -> SubmitTicket {
        try StoreLimits.check(job)
        let named: [(RedisArgument, RedisArgument?)] = [
            ("max_runtime_ms", job.maxRuntimeMs.map { .int($0) }), ("class", job.jobClass.map { .string($0) }),
            ("cold", job.isCold.map { $0 ? "1" : "0" }), ("plan", job.planJSON.map { .string($0) }),
            ("traceparent", job.traceparent.map { .string($0) }), ("retry_of", job.retryOf.map { .string($0.text) }),
            ("prefer", job.prefer.map { .string($0) }), ("children", job.children.map { .int($0) }),
            ("delay_ms", job.delayMs > 0 ? .int(job.delayMs) : nil), ("expires_at", job.expiresAtMs.map { .int($0) }),
            ("once", job.isIdempotent && job.childOf == nil ? "1" : nil), ("child", job.childOf != nil ? "1" : nil),
        ]
        var rest: [RedisArgument] = []
        for case (let name, let value?) in named { rest += [name, value] }
        let id = job.childOf ?? job.id
        let common: [RedisArgument] = [
            .string(job.pipeline), .string(job.owner.text), .int(job.priority), .int(job.maxAttempts ?? settings.defaultMaxAttempts),
            .int(job.ttlMs ?? settings.defaultTTL.wholeMilliseconds),
        ]
        let entry = SubmitBatcher.Entry(
            id: id,
            params: job.paramsJSON,
            common: rest.isEmpty ? common : common + rest,
            isAlone: job.children != nil || job.childOf != nil || id.childNumber != nil,
            bytes: job.paramsJSON.utf8.count + (job.planJSON?.utf8.count ?? 0) + SubmitBatcher.Entry.overheadBytes,
            deadline: .now() + TimeAmount(redis.configuration.commandTimeout),
            ticket: SubmitTicket()
        )
        try submits.add(entry, to: .init(queue: job.children == nil ? job.queue : Keys.heldQueue, partition: keys.partition(of: id)))
        return entry.ticket
    }

    private func outcome(of job: JobSubmission, _ answer: RESPValue) throws(StoreError) -> SubmitOutcome {
        if let body = answer.buffer {
            return SubmitOutcome(isNew: true, head: JobHead(job: job.id, seq: 1, phase: .queued, owner: job.owner, body: body))
        }
        let reply = try ScriptReply(Scripts.submit, answer)
        switch reply.status {
        case "new":
            guard let id = reply.text(1).flatMap({ JobID($0) }), let body = reply.buffer(2) else { throw reply.unexpected }
            return SubmitOutcome(isNew: true, head: JobHead(job: id, seq: 1, phase: .queued, owner: job.owner, body: body))
        case "exists":
            guard let id = reply.text(1).flatMap({ JobID($0) }), let body = reply.buffer(2), let seq = reply.int(3),
                let phase = reply.text(4).flatMap(Phase.init(rawValue:))
            else {
                throw reply.unexpected
            }
            let head = JobHead(job: id, seq: seq, phase: phase, owner: Owner(reply.text(5) ?? ""), body: body)
            return SubmitOutcome(isNew: false, head: head)
        case "conflict":
            throw StoreError(.conflict, "the id \(job.id) is taken by another job: choose another id")
        case "gone":
            throw StoreError(.gone, "the job of this idempotency key has expired: use a new key to run it again")
        case "full":
            throw StoreError(.full, "queue \(job.queue) holds its \(reply.text(1) ?? "") jobs: try again later")
        case "tenant_full":
            throw StoreError(.full, "queue \(job.queue) holds \(reply.text(1) ?? "") jobs of yours, as many as it may: try again later")
        case "draining":
            throw StoreError(.draining, "queue \(job.queue) takes no new jobs while it is drained")
        case "no_group":
            throw StoreError(.unknownGroup, "there is no group \((job.childOf ?? job.id).root): submit it first, with children")
        case "group_full":
            throw StoreError(.conflict, "the group \((job.childOf ?? job.id).root) has its \(reply.text(1) ?? "") children")
        case "group_ended":
            throw StoreError(.conflict, "the group \((job.childOf ?? job.id).root) has ended or is cancelled: it takes no more children")
        case "unknown_field":
            throw StoreError(.invalid, "unknown field \(reply.text(1) ?? "")")
        default:
            throw reply.unexpected
        }
    }

    /// Cancels a waiting job at once; asks the worker of a running one, which has `cancelGrace` to acknowledge before the job
    /// is ended without it.
    ///
    /// - Parameters:
    ///   - by: who asks, shown to watchers, at most 128 bytes.
    ///   - reason: why, shown to watchers, at most 512 bytes.
    public func cancel(_ job: JobID, by: String, reason: String?) async throws(StoreError) -> CancelOutcome {
        guard by.utf8.count <= StoreLimits.nameBytes, (reason ?? "").utf8.count <= StoreLimits.textBytes else {
            throw StoreError(.invalid, "reason: at most \(StoreLimits.textBytes) bytes")
        }
        let reply = try await run(
            Scripts.cancel,
            keys: [keys.job(job)] + wakeKey(Keys.heldQueue),
            [
                verb, .string(by), .string(reason ?? ""), .int(settings.cancelGrace.wholeMilliseconds), .string(keys.workerHintsPrefix),
            ]
        )
        switch reply.status {
        case "absent": return .absent
        case "cancelled": return .cancelled
        case "requested": return .requested(first: reply.text(1) == "1")
        case "ended":
            guard let phase = reply.text(1).flatMap(Phase.init(rawValue:)) else { throw reply.unexpected }
            return .alreadyEnded(phase)
        default: throw reply.unexpected
        }
    }

    /// The wake list, declared to a script where it can reach it: it lies in a slot of its own.
    func wakeKey(_ queue: String) -> [String] {
        settings.reachesWakeLists(keys) ? [keys.wake(queue)] : []
    }
}
