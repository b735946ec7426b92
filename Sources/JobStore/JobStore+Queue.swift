public import ProgressCore
import RedisLink

/// Verbs of operators: what a queue takes and gives, and what becomes of its dead letters.
extension JobStore {
    /// Changes settings of a queue, all or none in each partition; what a wider limit allows starts at once.
    ///
    /// - Throws: `.invalid` for a value out of range.
    public func configure(queue: String, _ changes: [QueueSetting]) async throws(StoreError) {
        guard StoreLimits.isQueueName(queue) else { throw StoreError(.invalid, "queue: 1–64 characters of a-z 0-9 - are needed") }
        let fields = changes.flatMap { change -> [RedisArgument] in
            let (name, value) = change.field
            return [.string(name), .string(value)]
        }
        for partition in 0..<keys.partitions {
            let reply = try await run(
                Scripts.settings,
                keys: [keys.queue(queue, .meta, partition: partition)] + wakeKey(queue),
                [.string(queue)] + fields
            )
            guard reply.status == "ok" else { throw reply.unexpected }
        }
    }

    /// Ends every job that waits in `place` (CANCELLED, with who), or forgets the dead letters. Runs in small steps: jobs that are
    /// submitted meanwhile may be caught too.
    ///
    /// - Returns: how many.
    public func purge(queue: String, _ place: PurgePlace, by: String) async throws(StoreError) -> Int {
        var done = 0
        for partition in 0..<keys.partitions {
            while true {
                let reply = try await run(
                    Scripts.purge,
                    keys: [keys.queue(queue, .ready, partition: partition)] + wakeKey(queue),
                    [verb, .string(queue), .string(by), .string(place.rawValue)]
                )
                guard reply.status == "ok", let step = reply.int(1), let left = reply.int(2) else { throw reply.unexpected }
                done += step
                if step == 0 || left == 0 { break }
            }
        }
        return done
    }

    /// Notes, once, that a terminal job is tried again as `successor`. The caller then submits that job with `retryOf`; a repeated
    /// call is answered with the same successor, so that a lost reply makes no second one.
    public func retire(_ job: JobID, successor: JobID) async throws(StoreError) -> RetireOutcome {
        let reply = try await run(Scripts.retire, keys: [keys.job(job)], [.string(successor.text)])
        switch reply.status {
        case "ok":
            guard let noted = reply.text(1).flatMap({ JobID($0) }) else { throw reply.unexpected }
            return .retriedAs(noted)
        case "absent": return .absent
        case "running":
            guard let phase = reply.text(1).flatMap(Phase.init(rawValue:)) else { throw reply.unexpected }
            return .running(phase)
        default: throw reply.unexpected
        }
    }

    /// Tries a terminal job again as a new one, with the same or other params. Repeating it answers with the same new job.
    ///
    /// - Parameters:
    ///   - successor: id of the new job, should there be none yet.
    ///   - paramsJSON: a JSON object instead of the old params, already validated.
    /// - Throws: `.unknownJob`, `.conflict` for a job that has not ended, and what `submit` throws.
    public func retry(_ job: JobID, successor: JobID, paramsJSON: String? = nil) async throws(StoreError) -> SubmitOutcome {
        switch try await retire(job, successor: successor) {
        case .absent: throw StoreError(.unknownJob, "there is no job \(job)")
        case .running(let phase):
            throw StoreError(
                .conflict,
                "the job \(job) is \(phase.rawValue): only a job that has ended can be tried again; cancel it first"
            )
        case .retriedAs(let noted):
            guard let old = try await snapshot(job) else { throw StoreError(.unknownJob, "the job \(job) expired just now") }
            if let head = try await heads([noted]).first ?? nil {
                try await forgetDeadLetter(old)
                return SubmitOutcome(isNew: false, head: head)
            }
            guard old.fields["queue"] != Keys.heldQueue else {
                throw StoreError(.conflict, "the job \(job) had no queue: its producer opens a new one")
            }
            let outcome = try await submit(JobSubmission(retrying: old, as: noted, paramsJSON: paramsJSON))
            // Not before: a submit that is refused, or a process that dies here, leaves the dead letter for the next redrive.
            try await forgetDeadLetter(old)
            return outcome
        }
    }

    private func forgetDeadLetter(_ old: JobSnapshot) async throws(StoreError) {
        guard let queue = old.fields["queue"] else { return }
        _ = try await command([
            "ZREM", .string(keys.queue(queue, .dead, partition: keys.partition(of: old.job))), .string(old.job.text),
        ])
    }

    /// The oldest `limit` dead letters of a queue.
    public func deadLetters(queue: String, limit: Int) async throws(StoreError) -> [DeadLetter] {
        var letters: [DeadLetter] = []
        for partition in 0..<keys.partitions {
            let reply = try await command([
                "ZRANGE", .string(keys.queue(queue, .dead, partition: partition)), "0", .int(max(0, limit - 1)), "WITHSCORES",
            ])
            let flat = reply.array ?? []
            for index in stride(from: 0, to: flat.count - 1, by: 2) {
                guard let job = flat[index].string.flatMap({ JobID($0) }) else { continue }
                let time = Double(flat[index + 1].string ?? "") ?? 0
                letters.append(DeadLetter(job: job, finishedAtMs: Int(time), pipeline: "", owner: Owner(""), attempts: 0, errorJSON: "{}"))
            }
        }
        letters.sort { $0.finishedAtMs < $1.finishedAtMs }
        letters = Array(letters.prefix(limit))
        let replies = try await pipeline(letters.map { ["HMGET", .string(keys.job($0.job)), "pipeline", "owner", "attempt", "error"] })
        for (index, reply) in replies.enumerated() {
            guard let values = reply.array, values.count == 4 else { continue }
            letters[index].pipeline = values[0].string ?? ""
            letters[index].owner = Owner(values[1].string ?? "")
            letters[index].attempts = values[2].int ?? 0
            letters[index].errorJSON = values[3].string ?? "{}"
        }
        return letters
    }
}

extension JobSubmission {
    /// The same work once more, as `id`.
    init(retrying old: JobSnapshot, as id: JobID, paramsJSON: String?) {
        func number(_ name: String) -> Int? { old.fields[name].flatMap { Int($0) } }
        self.init(
            id: id,
            queue: old.fields["queue"] ?? "",
            pipeline: old.fields["pipeline"] ?? "",
            owner: old.owner,
            paramsJSON: paramsJSON ?? old.fields["params"] ?? "{}"
        )
        priority = number("priority") ?? priority
        // A hand-back raises the stored number; the submitter's own is not kept apart, and one more attempt harms nobody.
        maxAttempts = number("max_attempts").map { min($0, StoreLimits.maximumAttempts) }
        maxRuntimeMs = number("max_runtime_ms")
        ttlMs = number("ttl_ms")
        jobClass = old.fields["class"]
        isCold = old.fields["cold"].map { $0 == "1" }
        planJSON = old.fields["plan"]
        prefer = old.fields["prefer"]
        retryOf = old.job
    }
}
