public import ProgressCore
import RedisLink

/// What became of a job's lesson.
public enum LearnOutcome: Sendable, Equatable {
    /// Taken in; jobs learned from so far.
    case learned(jobs: Int)
    /// This end was taken in before.
    case repeated
    /// The statistics have another layout; they are left alone.
    case otherVersion
}

/// Learned durations, per pipeline. All of it is a convenience: losing it costs accuracy for a few jobs and nothing else.
extension JobStore {
    /// What earlier jobs of `pipeline` took; nothing learned when there is nothing.
    public func statistics(pipeline: String) async throws(StoreError) -> LearnedStatistics {
        let flat = try await command(["HGETALL", .string(keys.statistics(pipeline))]).array ?? []
        var fields: [(name: String, text: String)] = []
        fields.reserveCapacity(flat.count / 2)
        for index in stride(from: 0, to: flat.count - 1, by: 2) {
            fields.append((flat[index].string ?? "", flat[index + 1].string ?? ""))
        }
        return LearnedStatistics(fieldTexts: fields)
    }

    /// Takes in what a job taught that ended COMPLETE under `lease`. Repeating it is harmless.
    ///
    /// - Parameter traceJSON: see `setTrace`, which it saves, in the same command where Redis has all keys in one place.
    public func learn(
        _ record: LearningRecord,
        pipeline: String,
        lease: Lease,
        traceJSON: String? = nil
    ) async throws(StoreError) -> LearnOutcome {
        let isOneStep = !wakeKey(lease.queue).isEmpty && !record.isEmpty && (traceJSON ?? "").utf8.count <= StoreLimits.traceBytes
        if let traceJSON, !isOneStep { try await setTrace(lease.job, json: traceJSON) }
        guard !record.isEmpty else { return .repeated }
        var arguments: [RedisArgument] = [
            .string("\(lease.job.text) \(lease.fence)"), .int(StoreLimits.statisticsKeepMs),
            .string(Self.text(LearnedStatistics.constants)),
            .int(LearnedStatistics.version), .int(ProgressLimits.statisticsFields), .string(record.worker),
            .string(record.workerError.map { "\($0)" } ?? ""), .string(record.route.map { "=" + $0.text } ?? ""),
            .string(record.deviations.map { $0.map { "\($0)" } ?? "-" }.joined(separator: " ")), .string(isOneStep ? traceJSON ?? "" : ""),
        ]
        for addition in record.additions {
            arguments.append(.string(addition.field))
            arguments.append(.string("\(addition.decay)"))
            switch addition.terms {
            case .values(let values): arguments.append(.string(Self.text(values)))
            case .bin(let bin, let width): arguments.append(.string("@\(bin) \(width)"))
            }
        }
        let jobKeys = isOneStep && traceJSON != nil ? [keys.job(lease.job), keys.trace(lease.job)] : []
        let reply = try await run(Scripts.learn, keys: [keys.statistics(pipeline), keys.statisticsSeen(pipeline)] + jobKeys, arguments)
        switch reply.status {
        case "ok":
            let jobs = reply.int(1) ?? 0
            if jobs == 1 { try await register(pipeline) }
            return .learned(jobs: jobs)
        case "seen": return .repeated
        case "other": return .otherVersion
        default: throw reply.unexpected
        }
    }

    /// Puts `statistics` in the place of what was learned. A job that ends meanwhile may teach nothing.
    public func setStatistics(_ statistics: LearnedStatistics, pipeline: String) async throws(StoreError) {
        let key = RedisArgument.string(keys.statistics(pipeline))
        let fields = statistics.fieldTexts.flatMap { [RedisArgument.string($0.name), .string($0.text)] }
        guard !fields.isEmpty else { return try await forgetStatistics(pipeline: pipeline) }
        let replies = try await pipelined([
            ["MULTI"], ["DEL", key], ["HSET", key] + fields, ["PEXPIRE", key, .int(StoreLimits.statisticsKeepMs)], ["EXEC"],
        ])
        if case .error(let message)? = replies.last { throw StoreError(.corrupt, message) }
        try await register(pipeline)
    }

    /// Forgets what was learned of a pipeline.
    public func forgetStatistics(pipeline: String) async throws(StoreError) {
        _ = try await pipelined([
            ["UNLINK", .string(keys.statistics(pipeline))], ["UNLINK", .string(keys.statisticsSeen(pipeline))],
            ["ZREM", .string(keys.statisticsIndex), .string(Keys.statisticsName(pipeline))],
        ])
    }

    /// The pipelines of which something was learned, the newest first.
    public func statisticsPipelines() async throws(StoreError) -> [String] {
        (try await command(["ZREVRANGE", .string(keys.statisticsIndex), "0", "-1"]).array ?? []).compactMap(\.string)
    }

    /// Remembers that a pipeline has statistics. Names come from submitters: there may be many, and only so many are kept.
    private func register(_ pipeline: String) async throws(StoreError) {
        let index = RedisArgument.string(keys.statisticsIndex)
        let now = try await command(["TIME"]).array?.first?.int ?? 0
        let replies = try await pipelined([["ZADD", index, .int(now), .string(Keys.statisticsName(pipeline))], ["ZCARD", index]])
        let surplus = (replies.last?.int ?? 0) - StoreLimits.statisticsPipelines
        guard surplus > 0 else { return }
        for name in (try await command(["ZRANGE", index, "0", .int(surplus - 1)]).array ?? []).compactMap(\.string) {
            try await forgetStatistics(pipeline: name)
        }
    }

    private func pipelined(_ commands: [[RedisArgument]]) async throws(StoreError) -> [RESPValue] { try await self.pipeline(commands) }

    private static func text(_ values: [Double]) -> String { values.map { "\($0)" }.joined(separator: " ") }
}

/// When the stages of a job began, ended and ticked, for whoever wants to score an estimator on it.
extension JobStore {
    /// Keeps `json` for as long as the job itself is kept.
    public func setTrace(_ job: JobID, json: String) async throws(StoreError) {
        guard json.utf8.count <= StoreLimits.traceBytes else {
            throw StoreError(.invalid, "trace: at most \(StoreLimits.traceBytes) bytes")
        }
        let left = try await command(["PTTL", .string(keys.job(job))]).int ?? 0
        guard left > 0 else { return }
        _ = try await command(["SET", .string(keys.trace(job)), .string(json), "PX", .int(left)])
    }

    /// What `setTrace` kept.
    public func trace(_ job: JobID) async throws(StoreError) -> String? {
        try await command(["GET", .string(keys.trace(job))]).string
    }
}
