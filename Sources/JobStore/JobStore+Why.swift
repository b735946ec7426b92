public import ProgressCore
import RedisLink

/// Why a job is where it is.
extension JobStore {
    /// What decides that the job moves or does not, the most decisive first; nil for an absent job.
    ///
    /// Plain reads in two round trips, which are no snapshot: a job that changed hands between them is looked at again.
    public func why(_ job: JobID) async throws(StoreError) -> JobDiagnosis? {
        var facts = try await look(job)
        for _ in 0..<Self.looksAgain where facts?.isUncertain == true { facts = try await look(job) }
        return facts?.diagnosis
    }

    /// A job that changes hands between two reads is looked at again this often.
    private static let looksAgain = 3

    private func look(_ job: JobID) async throws(StoreError) -> DiagnosisFacts? {
        let names = DiagnosisFacts.fieldNames
        let first = try await checked([
            ["HMGET", .string(keys.job(job))] + names.map { .string($0) },
            ["LRANGE", .string(keys.milestones(job)), "0", "-1"],
            ["TIME"],
            ["ZREVRANGE", .string(keys.workers), "0", .int(DiagnosisFacts.workersRead - 1)],
            ["HGETALL", .string(keys.group(job))],
        ])
        guard let values = first[0].array, values.count == names.count, values[0].string != nil else { return nil }
        var facts = DiagnosisFacts(job: job, nowMs: first[2].unixMs ?? 0)
        for (name, value) in zip(names, values) { facts.fields[name] = value.string }
        facts.milestones = (first[1].array ?? []).compactMap(\.string)
        facts.group = first[4].stringMap
        guard !facts.phase.isTerminal else { return facts }

        let workers = facts.isGroup ? [] : (first[3].array ?? []).compactMap(\.string)
        let children = facts.childrenToRead
        let replies = try await checked(
            placeReads(job, facts)
                + workers.map { ["HMGET", .string(keys.worker($0)), "queues", "concurrency", "jobs", "draining"] }
                + children.map { ["HGET", .string(keys.job($0)), "phase"] }
        )
        read(places: replies, into: &facts)
        let rest = replies.dropFirst(Self.placeReadCount)
        for (id, reply) in zip(workers, rest) {
            guard let record = reply.array, record.count == 4, let queues = record[0].string else { continue }
            facts.workers.append(
                DiagnosisFacts.Worker(
                    id: id,
                    queues: queues.split(separator: ",").map(String.init),
                    places: record[1].int ?? 1,
                    jobs: (record[2].string ?? "").split(separator: ",").count,
                    isDraining: record[3].string == "1"
                )
            )
        }
        for (child, reply) in zip(children, rest.dropFirst(workers.count)) {
            guard let phase = reply.string.flatMap(Phase.init(rawValue:)), !phase.isTerminal else { continue }
            facts.openChildren.append(.init(job: child, phase: phase))
        }
        return facts
    }

    private static let placeReadCount = 9

    private func placeReads(_ job: JobID, _ facts: DiagnosisFacts) -> [[RedisArgument]] {
        let (queue, tenant, partition) = (facts.queue, facts.owner.tenant, keys.partition(of: job))
        func place(_ part: Keys.QueuePart) -> RedisArgument { .string(keys.queue(queue, part, partition: partition)) }
        let (id, parked) = (RedisArgument.string(job.text), RedisArgument.string(keys.parked(tenant, of: queue, partition: partition)))
        return [
            ["ZRANK", place(.ready), id],
            ["ZCARD", place(.ready)],
            ["ZSCORE", place(.delayed), id],
            ["ZRANK", parked, id],
            ["ZSCORE", place(.leases), id],
            ["ZCARD", place(.leases)],
            [
                "HMGET", place(.meta), "paused", "draining", "max_running", .string("max_running:\(tenant)"), "tenant_max_running",
            ],
            ["HGET", .string(keys.tenant(tenant, of: queue, partition: partition)), "running"],
            ["HMGET", .string(keys.job(job)), "phase", "fence"],
        ]
    }

    private func read(places replies: [RESPValue], into facts: inout DiagnosisFacts) {
        facts.readyRank = replies[0].int
        facts.ready = replies[1].int ?? 0
        facts.dueMs = replies[2].score
        facts.parkedRank = replies[3].int
        facts.leaseMs = replies[4].score
        facts.running = replies[5].int ?? 0
        let settings = replies[6].array ?? []
        if settings.count == 5 {
            facts.isPaused = !settings[0].isNull
            facts.isDraining = !settings[1].isNull
            facts.queueLimit = settings[2].int
            facts.tenantLimit = settings[3].int ?? settings[4].int
        }
        facts.tenantRunning = replies[7].int ?? 0
        let now = replies[8].array ?? []
        // It may have been claimed or ended since the first read.
        if now.count == 2 {
            facts.hasMoved = now[0].string != facts.fields["phase"] || now[1].string != facts.fields["fence"]
        }
    }

    /// A pipeline in which no answer may be an error.
    func checked(_ commands: [[RedisArgument]]) async throws(StoreError) -> [RESPValue] {
        let replies = try await pipeline(commands)
        for case .error(let message) in replies { throw StoreError(.corrupt, message) }
        return replies
    }
}

extension RESPValue {
    /// The score of a sorted set's member as whole milliseconds.
    var score: Int? { string.flatMap { Double($0) }.flatMap { Int(exactly: $0.rounded()) } }

    /// The answer to `TIME`.
    var unixMs: Int? {
        guard let parts = array, parts.count == 2, let seconds = parts[0].int, let micros = parts[1].int else { return nil }
        return seconds * 1000 + micros / 1000
    }

    /// The answer to `HGETALL`.
    var stringMap: [String: String] {
        let flat = array ?? []
        var map: [String: String] = [:]
        for index in stride(from: 0, to: flat.count - 1, by: 2) { map[flat[index].string ?? ""] = flat[index + 1].string ?? "" }
        return map
    }
}
