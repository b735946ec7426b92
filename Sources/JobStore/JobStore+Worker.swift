public import NIOCore
public import ProgressCore
import RedisLink

/// Verbs of workers: everything here names a lease, and a lease that was lost changes nothing.
extension JobStore {
    /// Takes the first eligible job of `queue`.
    ///
    /// - Parameter nonce: random text of this attempt to claim; repeating the call with it after a lost reply returns the same
    ///   claim. No spaces, at most 128 bytes.
    /// - Parameter labels: jobs that prefer one of them come first, within bounds (docs/redis.md); at most `StoreLimits.labels`.
    public func claim(queue: String, worker: String, nonce: String, labels: [String] = []) async throws(StoreError) -> ClaimOutcome {
        let request = ClaimRequest(queue: queue, worker: worker, nonce: nonce, labels: labels)
        var nextDueMs: Int?
        for partition in 0..<keys.partitions {
            let reply = try await run(
                Scripts.claim,
                keys: [keys.queue(queue, .ready, partition: partition)] + wakeKey(queue),
                [verb, .string(request.queue), .string(request.worker), .string(request.nonce)] + rest(of: request)
            )
            switch try outcome(from: reply, of: request) {
            case .empty(let dueMs): nextDueMs = [nextDueMs, dueMs].compactMap { $0 }.min()
            case let other: return other
            }
        }
        return .empty(nextDueMs: nextDueMs)
    }

    /// What the scripts that claim take last.
    private func rest(of request: ClaimRequest) -> [RedisArgument] {
        [.int(settings.lease.wholeMilliseconds), .string(hex(UInt32(truncatingIfNeeded: settings.random())))]
            + request.labels.prefix(StoreLimits.labels).map { .string($0) }
    }

    private func outcome(from reply: ScriptReply, of request: ClaimRequest) throws(StoreError) -> ClaimOutcome {
        switch reply.status {
        case "job": .job(try claim(from: reply, of: request))
        case "paused": .paused
        case "empty": .empty(nextDueMs: reply.int(1))
        default: throw reply.unexpected
        }
    }

    private func claim(from reply: ScriptReply, of request: ClaimRequest) throws(StoreError) -> Claim {
        guard reply.values.count == 10 || reply.values.count == 16, let job = reply.text(1).flatMap({ JobID($0) }),
            let fence = reply.text(2),
            let attempt = reply.int(3),
            let maxAttempts = reply.int(4), let pipeline = reply.text(5), let createdAtMs = reply.int(8)
        else { throw reply.unexpected }
        return Claim(
            lease: Lease(job: job, queue: request.queue, fence: fence, worker: request.worker, nonce: request.nonce),
            attempt: attempt,
            maxAttempts: maxAttempts,
            pipeline: pipeline,
            owner: Owner(reply.text(6) ?? ""),
            paramsJSON: reply.text(7) ?? "{}",
            jobClass: reply.text(10),
            isCold: reply.text(11).map { $0 == "1" },
            planJSON: reply.text(12),
            maxRuntimeMs: reply.int(13),
            traceparent: reply.text(14),
            prefer: reply.text(15),
            createdAtMs: createdAtMs,
            // Only where one script sees the whole line, and leaves the tokens itself.
            isLast: reply.text(9) != "more" && keys.partitions == 1 && !wakeKey(request.queue).isEmpty
        )
    }

    /// Blocks until one of the queues may have work, at most `atMost`. A wake-up is a hint: `claim` decides.
    ///
    /// - Parameter labels: as given to `claim`; a job that prefers one wakes this worker.
    public func waitForWork(queues: [String], labels: [String] = [], atMost: Duration) async throws(StoreError) {
        // Redis takes the time-out in seconds and rounds nothing; 0 would wait for ever.
        let seconds = max(0.01, Double(atMost.wholeMilliseconds) / 1000)
        do {
            var lists = queues.map { RedisArgument.string(keys.wake($0)) }
            for queue in queues { lists += labels.prefix(StoreLimits.labels).map { .string(keys.wake(queue, label: $0)) } }
            _ = try await redis.blockingSend(["BLPOP"] + lists + [.string("\(seconds)")], timeout: atMost)
        } catch {
            throw StoreError(error)
        }
    }

    /// Extends the lease; needed at least every `settings.lease`.
    public func heartbeat(_ lease: Lease) async throws(StoreError) -> LeaseStatus {
        try status(
            of: await run(
                Scripts.heartbeat,
                keys: [keys.job(lease.job)],
                [.string(lease.fence), .int(settings.lease.wholeMilliseconds)]
            )
        )
    }

    /// Writes the whole progress of the job and renews the lease.
    ///
    /// - Parameter write: number of this write under the lease, from 1, higher with every new state; a repeated number is
    ///   answered as applied and changes nothing.
    /// - Parameter quietMs: for how long the work has said nothing new: a bar that moves by the clock is no sign of life.
    /// - Throws: `.invalid` for a phase before the job's, a terminal phase or a value over its limit.
    public func advance(
        _ lease: Lease,
        write: Int,
        to state: ProgressState,
        quietMs: Int = 0
    ) async throws(StoreError) -> AdvanceOutcome {
        let reply = try await run(
            Scripts.advance,
            keys: [keys.job(lease.job)],
            [verb, .string(lease.fence), .int(write), .int(settings.lease.wholeMilliseconds)]
                + WireState.arguments(state, quietMs: quietMs)
        )
        switch reply.status {
        case "ok":
            guard let seq = reply.int(1) else { throw reply.unexpected }
            return .accepted(seq: seq, wasClamped: reply.text(2) == "1", cancel: reply.text(3).flatMap(CancelRequest.init(json:)))
        case "lost": return .lost
        default: throw reply.unexpected
        }
    }

    /// Appends log lines; lossy, capped by count and bytes. Lines over `StoreLimits.logLineBytes` must be cut before.
    ///
    /// - Parameter droppedBefore: lines the caller dropped since its last write, added to the stream's counter.
    public func appendLog(
        _ lease: Lease,
        write: Int?,
        _ lines: [LogLine],
        droppedBefore: Int
    ) async throws(StoreError) -> LeaseStatus {
        guard lines.count <= StoreLimits.logLinesPerWrite, lines.allSatisfy({ $0.text.utf8.count <= StoreLimits.logLineBytes }) else {
            throw StoreError(
                .invalid,
                "log: at most \(StoreLimits.logLinesPerWrite) lines of \(StoreLimits.logLineBytes) bytes per write"
            )
        }
        return try status(
            of: await run(
                Scripts.log,
                keys: [keys.job(lease.job)],
                [verb, .string(lease.fence), write.map { .int($0) } ?? "", .int(droppedBefore)]
                    + lines.flatMap { [.string($0.stream), .string($0.text)] }
            )
        )
    }

    /// Replaces the preview image (PNG, JPEG or WebP).
    public func setPreview(_ lease: Lease, image: ByteBuffer, contentType: String) async throws(StoreError) -> LeaseStatus {
        guard image.readableBytes <= StoreLimits.previewBytes else {
            throw StoreError(.invalid, "preview: at most \(StoreLimits.previewBytes) bytes")
        }
        guard ImageType(of: image)?.contentType == contentType else {
            throw StoreError(.invalid, "preview: the bytes are not \(contentType)")
        }
        return try status(of: await run(Scripts.preview, keys: [keys.job(lease.job)], [verb, .string(lease.fence), .buffer(image)]))
    }

    /// Ends the job: COMPLETE, or CANCELLED when the worker acknowledges a cancel. Repeating it is harmless.
    ///
    /// - Parameter resultJSON: a JSON object, validated by the caller, at most `StoreLimits.resultBytes`.
    public func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)]
    ) async throws(StoreError) -> FinishStatus {
        try await finish(lease, as: end, resultJSON: resultJSON, stagesMs: stagesMs, then: nil).status
    }

    /// The same, and in the same step the worker's next job, which costs no command of its own.
    ///
    /// Repeating it is harmless: the ended job remembers which came along, and while that one is held the answer stays the same; after
    /// that it is `.empty`. A job comes along only where every queue lies in one partition; elsewhere, and when the job was lost, `next`
    /// is nil and nothing was claimed. The request's nonce does not count.
    public func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)],
        then request: ClaimRequest?
    ) async throws(StoreError) -> (status: FinishStatus, next: ClaimOutcome?) {
        guard (resultJSON ?? "").utf8.count <= StoreLimits.resultBytes else {
            throw StoreError(.invalid, "result: at most \(StoreLimits.resultBytes) bytes")
        }
        let request = keys.partitions == 1 ? request : nil
        let phase: Phase = end == .complete ? .complete : .cancelled
        let reply = try await run(
            Scripts.finish,
            keys: [keys.job(lease.job)] + wakeKey(lease.queue),
            [
                verb, .string(lease.fence), .string(phase.rawValue), .string(resultJSON ?? ""), .string(stagesJSON(stagesMs)),
                .string(lease.nonce),
            ] + (request.map { [.string($0.queue), .string($0.worker)] + rest(of: $0) } ?? [])
        )
        switch reply.status {
        case "ok":
            guard var request else { return (.done, nil) }
            request.nonce = ""
            guard let answer = reply.dropFirst() else { throw reply.unexpected }
            return (.done, try outcome(from: answer, of: request))
        case "lost": return (.lost, nil)
        default: throw reply.unexpected
        }
    }

    /// The attempt failed: the next one after a back-off, or FAILED for good. Repeating it is harmless.
    public func fail(_ lease: Lease, error: JobError, stagesMs: [(stage: String, ms: Int)]) async throws(StoreError) -> FailStatus {
        let reply = try await run(
            Scripts.fail,
            keys: [keys.job(lease.job)] + wakeKey(lease.queue),
            [
                verb, .string(lease.fence), .string(error.json), error.isRecoverable ? "1" : "0", .int(Int(settings.random() % 1_000_000)),
                .string(stagesJSON(stagesMs)),
            ]
        )
        switch reply.status {
        case "retry":
            guard let attempt = reply.int(1), let delayMs = reply.int(2) else { throw reply.unexpected }
            return .willRetry(attempt: attempt, delayMs: delayMs)
        case "dead": return .dead
        case "lost": return .lost
        default: throw reply.unexpected
        }
    }

    /// Hands the job back to the head of its band, for a worker that shuts down. Uses no attempt of the job's budget.
    public func release(_ lease: Lease) async throws(StoreError) -> LeaseStatus {
        try status(
            of: await run(Scripts.release, keys: [keys.job(lease.job)] + wakeKey(lease.queue), [verb, .string(lease.fence)])
        )
    }

    /// Ends what ran out of time and hands on what lost its worker, in every partition of `queue`. Cheap when another process
    /// did it within the last half second.
    public func reap(queue: String) async throws(StoreError) -> ReapReport {
        var report = ReapReport()
        for partition in 0..<keys.partitions {
            let reply = try await run(
                Scripts.reap,
                keys: [keys.queue(queue, .meta, partition: partition)] + wakeKey(queue),
                [verb, .string(queue), .int(settings.reapInterval.wholeMilliseconds)]
            )
            if reply.status == "skipped" {
                report.skipped = true
            } else {
                report.requeued += reply.int(1) ?? 0
                report.ended += reply.int(2) ?? 0
            }
        }
        return report
    }

    func status(of reply: ScriptReply) throws(StoreError) -> LeaseStatus {
        switch reply.status {
        case "ok": reply.text(1).flatMap(CancelRequest.init(json:)).map { .cancelRequested($0) } ?? .held
        case "lost": .lost
        default: throw reply.unexpected
        }
    }

    func stagesJSON(_ stages: [(stage: String, ms: Int)]) -> String {
        guard !stages.isEmpty else { return "" }
        return "{" + stages.map { "\(JSONText.quoted($0.stage)):\(max(0, $0.ms))" }.joined(separator: ",") + "}"
    }

    private func hex(_ number: UInt32) -> String { String(number, radix: 16) }
}
