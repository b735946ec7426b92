import ProgressCore
import RedisLink

/// Who is there: queues and workers. Nothing of a job depends on it.
extension JobStore {
    /// Names of the queues that exist: a gateway's configuration or a worker registered them.
    public func queueNames() async throws(StoreError) -> Set<String> {
        Set((try await command(["SMEMBERS", .string(keys.queues)]).array ?? []).compactMap(\.string))
    }

    /// Adds queues; a queue exists from then on.
    public func registerQueues(_ names: [String]) async throws(StoreError) {
        for name in names where !StoreLimits.isQueueName(name) {
            throw StoreError(.invalid, "queue '\(name)': 1–64 characters of a-z 0-9 - are needed")
        }
        guard !names.isEmpty else { return }
        _ = try await command(["SADD", .string(keys.queues)] + names.map { .string($0) })
    }

    /// Writes the worker's record, alive for three times `settings.registration`, and its queues: one command.
    @discardableResult
    public func registerWorker(_ record: WorkerRecord) async throws(StoreError) -> WorkerOrders {
        for name in record.queues where !StoreLimits.isQueueName(name) {
            throw StoreError(.invalid, "queue '\(name)': 1–64 characters of a-z 0-9 - are needed")
        }
        let ttl = settings.registration.wholeMilliseconds * 3
        let reply = try await run(
            Scripts.register,
            keys: registryKeys(record.id),
            [.string(record.id), .string(record.instance), .int(ttl), .int(record.queues.count)]
                + record.queues.map { .string($0) } + record.fields.flatMap { [.string($0.name), .string($0.value)] }
        )
        guard reply.status == "ok" else { throw reply.unexpected }
        if !keysMayMix {
            _ = try await command(["ZADD", .string(keys.workers), .int(try await serverTimeMs() + ttl), .string(record.id)])
            try await registerQueues(record.queues)
        }
        return WorkerOrders(shouldDrain: reply.text(1) == "1", didReplace: reply.text(2) == "1")
    }

    /// Forgets a worker that stopped in good order, unless another start has taken the name.
    public func removeWorker(_ id: String, instance: String) async throws(StoreError) {
        let reply = try await run(Scripts.register, keys: registryKeys(id), [.string(id), .string(instance), "0", "0"])
        guard reply.status == "ok" else { throw reply.unexpected }
        if !keysMayMix, reply.text(2) == nil { _ = try await command(["ZREM", .string(keys.workers), .string(id)]) }
    }

    /// Tells a worker to finish its jobs, take no more and end. It is told at once, or by its next registration at the latest.
    ///
    /// - Returns: false when no live worker has that name.
    public func drainWorker(_ id: String) async throws(StoreError) -> Bool {
        let reply = try await run(
            Scripts.dismiss,
            keys: [keys.worker(id)],
            [.string(keys.workerHints(id)), .string(Self.drainHint)]
        )
        return reply.status == "ok"
    }

    /// What stands on a worker's hint channel instead of a job's id when it is to drain; no job can be named so.
    public static let drainHint = "!drain"

    /// The workers whose record is alive, by id.
    public func workers() async throws(StoreError) -> [WorkerRecord] {
        let ids = (try await command(["ZRANGE", .string(keys.workers), "0", "-1"]).array ?? []).compactMap(\.string).sorted()
        let nowMs = try await serverTimeMs()
        let replies = try await pipeline(ids.map { ["HGETALL", .string(keys.worker($0))] })
        return replies.compactMap { reply in
            guard let flat = reply.array, !flat.isEmpty else { return nil }
            var fields: [String: String] = [:]
            for index in stride(from: 0, to: flat.count - 1, by: 2) {
                fields[flat[index].string ?? ""] = flat[index + 1].string ?? ""
            }
            return WorkerRecord(fields: fields, nowMs: nowMs)
        }
    }

    /// How far the jobs of these workers are; jobs that ended meanwhile are left out.
    public func runningJobs(of records: [WorkerRecord]) async throws(StoreError) -> [RunningJob] {
        let jobs = records.flatMap(\.jobs).compactMap { JobID($0) }
        guard !jobs.isEmpty else { return [] }
        let nowMs = try await serverTimeMs()
        let replies = try await pipeline(
            jobs.map { ["HMGET", .string(keys.job($0)), "phase", "percent", "stage", "attempt", "claimed_at", "fence", "stalled"] }
        )
        return zip(jobs, replies).compactMap { job, reply in
            guard let values = reply.array, values.count == 7, let phase = values[0].string, !values[5].isNull else { return nil }
            return RunningJob(
                job: job.text,
                phase: phase,
                percent: Double(values[1].string ?? "") ?? 0,
                stage: values[2].string,
                attempt: values[3].int ?? 1,
                runningMs: max(0, nowMs - (values[4].int ?? nowMs)),
                isStalled: values[6].string == "1"
            )
        }
    }

    /// False in a Redis Cluster, where a script must not touch keys of several slots.
    private var keysMayMix: Bool { keys.partitions == 1 || !settings.useShardedPublish }

    private func registryKeys(_ id: String) -> [String] {
        [keys.worker(id)] + (keysMayMix ? [keys.workers, keys.queues] : [])
    }

    private func serverTimeMs() async throws(StoreError) -> Int {
        let parts = try await command(["TIME"]).array ?? []
        guard parts.count == 2, let seconds = parts[0].int, let micros = parts[1].int else {
            throw StoreError(.corrupt, "TIME answered something else than a time")
        }
        return seconds * 1000 + micros / 1000
    }
}
