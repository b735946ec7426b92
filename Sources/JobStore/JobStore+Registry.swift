import RedisLink

/// Who is there: queues and workers. Written outside the scripts, for people and dashboards.
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

    /// Writes the worker's record, alive for three heartbeats.
    public func registerWorker(_ record: WorkerRecord) async throws(StoreError) {
        let nowMs = try await serverTimeMs()
        let ttl = settings.heartbeat.wholeMilliseconds * 3
        let key = RedisArgument.string(keys.worker(record.id))
        let replies = try await pipeline([
            [
                "HSET", key, "id", .string(record.id), "host", .string(record.host), "pid", .int(record.pid),
                "version", .string(record.version), "queues", .string(record.queues.joined(separator: ",")),
                "pipeline", .string(record.pipeline), "concurrency", .int(record.concurrency),
                "jobs", .string(record.jobs.joined(separator: ",")), "draining", record.isDraining ? "1" : "0",
                "started_at", .int(record.startedAtMs), "seen_at", .int(nowMs),
            ],
            ["PEXPIRE", key, .int(ttl)],
            ["ZADD", .string(keys.workers), .int(nowMs + ttl), .string(record.id)],
            // Records of workers that died are removed by whoever registers next.
            ["ZREMRANGEBYSCORE", .string(keys.workers), "-inf", .int(nowMs - 24 * 3600 * 1000)],
        ])
        if case .error(let message)? = replies.first { throw StoreError(.unavailable, message) }
    }

    /// Forgets a worker that stopped in good order.
    public func removeWorker(_ id: String) async throws(StoreError) {
        _ = try await pipeline([["DEL", .string(keys.worker(id))], ["ZREM", .string(keys.workers), .string(id)]])
    }

    /// The workers whose record is alive, by id.
    public func workers() async throws(StoreError) -> [WorkerRecord] {
        let ids = (try await command(["ZRANGE", .string(keys.workers), "0", "-1"]).array ?? []).compactMap(\.string).sorted()
        let replies = try await pipeline(ids.map { ["HGETALL", .string(keys.worker($0))] })
        return replies.compactMap { reply in
            guard let flat = reply.array, !flat.isEmpty else { return nil }
            var fields: [String: String] = [:]
            for index in stride(from: 0, to: flat.count - 1, by: 2) {
                fields[flat[index].string ?? ""] = flat[index + 1].string ?? ""
            }
            return WorkerRecord(fields: fields)
        }
    }

    private func serverTimeMs() async throws(StoreError) -> Int {
        let parts = try await command(["TIME"]).array ?? []
        guard parts.count == 2, let seconds = parts[0].int, let micros = parts[1].int else {
            throw StoreError(.corrupt, "TIME answered something else than a time")
        }
        return seconds * 1000 + micros / 1000
    }
}

extension WorkerRecord {
    init?(fields: [String: String]) {
        guard let id = fields["id"] else { return nil }
        func list(_ name: String) -> [String] { (fields[name] ?? "").split(separator: ",").map(String.init) }
        func number(_ name: String) -> Int { Int(fields[name] ?? "") ?? 0 }
        self.init(
            id: id,
            host: fields["host"] ?? "",
            pid: number("pid"),
            version: fields["version"] ?? "",
            queues: list("queues"),
            pipeline: fields["pipeline"] ?? "",
            concurrency: number("concurrency"),
            jobs: list("jobs"),
            isDraining: fields["draining"] == "1",
            startedAtMs: number("started_at")
        )
    }
}
