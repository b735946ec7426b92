public import ProgressCore
import RedisLink

/// Verbs of those who submit and cancel.
extension JobStore {
    /// Creates a job, or finds that the very same submit happened before.
    ///
    /// Repeating it after a lost reply is safe: the id decides.
    /// With `childOf` the job becomes the group's next child; the outcome's head has its id.
    /// - Throws: `.conflict` when the id belongs to another job, `.gone` when an idempotency key's job has expired, `.full`, `.draining`,
    ///   `.unknownGroup`,
    ///   `.invalid`, `.unavailable`.
    public func submit(_ job: JobSubmission) async throws(StoreError) -> SubmitOutcome {
        try StoreLimits.check(job)
        let mode: RedisArgument = job.childOf != nil ? "child" : job.isIdempotent ? "1" : "0"
        var arguments: [RedisArgument] = [
            verb, mode, .int(StoreLimits.highestPriority - job.priority), .int(job.delayMs),
            job.expiresAtMs.map { .int($0) } ?? "",
            .string(job.children == nil ? job.queue : Keys.heldQueue), .string(job.pipeline), .string(job.owner.text), .int(job.priority),
            .string(job.paramsJSON), .int(job.maxAttempts ?? settings.defaultMaxAttempts),
            .int(job.ttlMs ?? settings.defaultTTL.wholeMilliseconds),
        ]
        let optional: [(RedisArgument, RedisArgument?)] = [
            ("max_runtime_ms", job.maxRuntimeMs.map { .int($0) }), ("class", job.jobClass.map { .string($0) }),
            ("cold", job.isCold.map { $0 ? "1" : "0" }), ("plan", job.planJSON.map { .string($0) }),
            ("traceparent", job.traceparent.map { .string($0) }), ("retry_of", job.retryOf.map { .string($0.text) }),
            ("prefer", job.prefer.map { .string($0) }), ("children", job.children.map { .int($0) }),
        ]
        for case (let name, let value?) in optional { arguments += [name, value] }

        let reply = try await run(Scripts.submit, keys: [keys.job(job.childOf ?? job.id)] + wakeKey(job.queue), arguments)
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
        keys.partitions == 1 || !settings.useShardedPublish ? [keys.wake(queue)] : []
    }
}
