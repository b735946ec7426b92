import ProgressCore
import RedisLink

/// Progress-only jobs: no queue gives them out, their producer (a script, a RunPod handler, a Celery task) opens them and reports.
/// They end by `finish` and `fail` like any other, and FAILED `producer_lost` when the lease runs out.
extension JobStore {
    /// Creates the job and gives its producer the lease that every further write names; its fence is the write token.
    ///
    /// - Throws: `.conflict` when the id is taken, `.invalid` for a value over its limit.
    public func open(_ job: ProducerSubmission) async throws(StoreError) -> OpenOutcome {
        try StoreLimits.check(job)
        var arguments: [RedisArgument] = [
            verb, .string(writeToken()), .string(job.nonce), .int(settings.lease.wholeMilliseconds), "pipeline", .string(job.pipeline),
            "owner", .string(job.owner.text), "params", .string(job.paramsJSON), "worker", .string(job.producer),
            "ttl_ms", .int(job.ttlMs ?? settings.defaultTTL.wholeMilliseconds),
        ]
        let optional: [(RedisArgument, RedisArgument?)] = [
            ("max_runtime_ms", job.maxRuntimeMs.map { .int($0) }), ("class", job.jobClass.map { .string($0) }),
            ("traceparent", job.traceparent.map { .string($0) }),
        ]
        for case (let name, let value?) in optional { arguments += [name, value] }
        let reply = try await run(Scripts.open, keys: [keys.job(job.id)], arguments)
        switch reply.status {
        case "new", "exists":
            guard let token = reply.text(1), let seq = reply.int(2) else { throw reply.unexpected }
            let lease = Lease(job: job.id, queue: Keys.heldQueue, fence: token, worker: job.producer)
            return OpenOutcome(isNew: reply.status == "new", lease: lease, seq: seq)
        case "conflict": throw StoreError(.conflict, "the id \(job.id) is taken by another job: choose another id")
        default: throw reply.unexpected
        }
    }

    /// Writes a part of a running job's progress and renews the lease; for those who know only what changed.
    ///
    /// - Parameter write: number of this write under the lease, higher each time, so that a repeated one changes nothing; nil
    ///   takes the next one, and a repeated write then counts again.
    /// - Throws: `.invalid` for a phase before the job's, a terminal phase or a value over its limit.
    public func report(_ lease: Lease, write: Int?, _ report: ProgressReport) async throws(StoreError) -> AdvanceOutcome {
        let reply = try await run(
            Scripts.report,
            keys: [keys.job(lease.job)],
            [verb, .string(lease.fence), write.map { .int($0) } ?? "", .int(settings.lease.wholeMilliseconds)] + WireState.arguments(report)
        )
        switch reply.status {
        case "ok":
            guard let seq = reply.int(1) else { throw reply.unexpected }
            return .accepted(seq: seq, wasClamped: reply.text(2) == "1", cancel: reply.text(3).flatMap(CancelRequest.init(json:)))
        case "lost": return .lost
        default: throw reply.unexpected
        }
    }

    /// 128 random bits.
    private func writeToken() -> String {
        let words = [settings.random(), settings.random()].map { word in
            let text = String(word, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        return words.joined()
    }
}

extension WireState {
    static func arguments(_ report: ProgressReport) -> [RedisArgument] {
        var out: [RedisArgument] = [
            report.phase.map { .string($0.rawValue) } ?? "", report.percent.map { .int(tenths($0)) } ?? "",
            report.phasePercent.map { .int(tenths($0)) } ?? "",
        ]
        func add(_ name: RedisArgument, _ value: RedisArgument?) {
            if let value { out += [name, value] }
        }
        add("percent_per_s", report.percentPerSecond.flatMap(significant).map { .string($0) })
        add("stage", report.stage.map { .string($0) })
        add("stage_percent", report.stagePercent.map { .int(tenths($0)) })
        add("step", natural(report.step))
        add("steps", natural(report.steps))
        add("item", natural(report.item))
        add("items", natural(report.items))
        add("message", report.message.map { .string($0) })
        add("eta_ms", natural(report.etaMs))
        add("eta_low_ms", natural(report.etaLowMs))
        add("eta_high_ms", natural(report.etaHighMs))
        add("stalled", report.isStalled ? "1" : nil)
        add("quiet_ms", natural(report.quietMs))
        return out
    }
}
