import ProgressCore
import RedisLink

/// How an audit goes about its work.
public struct AuditOptions: Sendable {
    /// Repair what can be repaired without guessing.
    public var fix: Bool
    /// What looks wrong is looked at again after this time, and only what is still wrong is reported: sweeps mend much by themselves.
    /// Longer than the time between two sweeps of a queue.
    public var confirmAfter: Duration = .seconds(3)
    /// Pause between two steps, so that an audit in the background leaves Redis to others.
    public var pause: Duration = .zero

    public init(fix: Bool) { self.fix = fix }
}

enum AuditLimits {
    /// Keys or members asked for in one step.
    static let page = 500
    /// Jobs looked at in one step of the script: about a millisecond of Redis.
    static let batch = 100
    /// Findings that are confirmed and reported.
    static let findings = 1000
    /// Jobs of a queue whose tenants' counts are checked one by one (COUNT_MAX of the script).
    static let countedJobs = 20_000
    /// Sweeps of a queue that nobody swept, each of 100 jobs.
    static let sweeps = 100
    /// A worker's entry is removed by the next that registers, after a day.
    static let workerLeftoverMs = 25 * 3600 * 1000
}

extension JobStore {
    /// Looks at every key: each job in exactly one place, leases with jobs, counts that add up, TTLs as the contract says.
    ///
    /// Each look at a job is one atomic step, so jobs that move meanwhile are no findings; and a finding is confirmed by a second
    /// look after `confirmAfter`. Repairs are atomic too, and safe while everything runs.
    public func audit(_ options: AuditOptions) async throws(StoreError) -> AuditReport {
        var report = AuditReport()
        var suspects = try await firstLook(options, &report)
        if suspects.isEmpty { return report }
        if suspects.count > AuditLimits.findings {
            report.isCut = true
            suspects = Dictionary(
                uniqueKeysWithValues: suspects.sorted { $0.key.order < $1.key.order }.prefix(AuditLimits.findings).map { $0 }
            )
        }
        try await pause(options.confirmAfter)
        for (suspect, found) in suspects.sorted(by: { $0.key.order < $1.key.order }) {
            let confirmed = found.intersection(try await look(at: suspect, fix: false).map(\.mark))
            if confirmed.isEmpty { continue }
            let repaired = options.fix ? Set(try await look(at: suspect, fix: true).filter(\.isRepaired).map(\.mark)) : []
            for mark in confirmed.sorted(by: { ($0.code.rawValue, $0.subject) < ($1.code.rawValue, $1.subject) }) {
                report.findings.append(suspect.finding(mark, isRepaired: repaired.contains(mark)))
            }
        }
        return report
    }

    /// True for the one process that is to audit now: for `interval` from this call on nobody else is.
    public func mayAudit(every interval: Duration) async throws(StoreError) -> Bool {
        let reply = try await command(["SET", .string(keys.audit), "1", "NX", "PX", .int(max(1, interval.wholeMilliseconds))])
        return !reply.isNull
    }

    // MARK: Everything once

    private func firstLook(
        _ options: AuditOptions,
        _ report: inout AuditReport
    ) async throws(StoreError) -> [AuditSuspect: Set<AuditMark>] {
        var suspects: [AuditSuspect: Set<AuditMark>] = [:]
        var places: [(key: String, queue: String, partition: Int)] = []
        var lines: Set<QueueSlice> = []
        var cursor = "0"
        repeat {
            let page = try await command([
                "SCAN", .string(cursor), "MATCH", .string("\(keys.prefix):*"), "COUNT", .int(AuditLimits.page),
            ])
            guard let parts = page.array, parts.count == 2, let next = parts[0].string else {
                throw StoreError(.corrupt, "SCAN answered something else than a page")
            }
            cursor = next
            let names = (parts[1].array ?? []).compactMap(\.string)
            report.keys += names.count
            let kinds = names.compactMap { name in keys.kind(of: name).map { (name, $0) } }
            for (name, kind) in kinds {
                switch kind {
                case .place(let queue, let partition, _):
                    places.append((name, queue, partition))
                    lines.insert(QueueSlice(queue: queue, partition: partition))
                case .queueMeta(let queue, let partition): lines.insert(QueueSlice(queue: queue, partition: partition))
                default: break
                }
            }
            try await lookAtKeys(kinds, options, &report, &suspects)
        } while cursor != "0"
        for place in places { try await lookAtPlace(place.key, place.queue, place.partition, options, &suspects) }
        let slices = lines.sorted { ($0.queue, $0.partition) < ($1.queue, $1.partition) }
        try await lookAtQueues(slices, options, &report, &suspects)
        for suspect in [AuditSuspect.schema, .workers] {
            let found = try await look(at: suspect, fix: false)
            if !found.isEmpty { suspects[suspect] = Set(found.map(\.mark)) }
        }
        return suspects
    }

    private func lookAtKeys(
        _ kinds: [(name: String, kind: KeyKind)],
        _ options: AuditOptions,
        _ report: inout AuditReport,
        _ suspects: inout [AuditSuspect: Set<AuditMark>]
    ) async throws(StoreError) {
        var jobs: [Int: [JobID]] = [:]
        var groups: [Int: [JobID]] = [:]
        var others: [(name: String, kind: KeyKind)] = []
        for (name, kind) in kinds {
            switch kind {
            case .job(let job): jobs[keys.partition(of: job), default: []].append(job)
            case .milestones, .lasting, .queueMeta, .place(_, _, lasts: true): break
            case .group(let job):
                groups[keys.partition(of: job), default: []].append(job)
                others.append((name, kind))
            default: others.append((name, kind))
            }
        }
        for (partition, ids) in jobs {
            report.jobs += ids.count
            try await lookAtJobs(ids, partition, areGroups: false, options, &suspects)
            // A group whose counts are lost is known only by its job: the script passes over those that are no groups.
            try await lookAtJobs(ids.filter { $0.childNumber == nil }, partition, areGroups: true, options, &suspects)
        }
        let ttls = try await checked(others.map { ["PTTL", .string($0.name)] })
        for (other, ttl) in zip(others, ttls) where ttl.int == -1 {
            let mark = AuditMark(code: other.kind == .unknown ? .unknownKey : .noTTL, subject: other.name)
            suspects[.key(other.name, isKnown: other.kind != .unknown)] = [mark]
        }
    }

    private func lookAtJobs(
        _ ids: [JobID],
        _ partition: Int,
        areGroups: Bool,
        _ options: AuditOptions,
        _ suspects: inout [AuditSuspect: Set<AuditMark>]
    ) async throws(StoreError) {
        var rest = ids[...]
        while !rest.isEmpty {
            let batch = rest.prefix(AuditLimits.batch)
            rest = rest.dropFirst(batch.count)
            let found = try await script(
                keys.jobPrefix(partition: partition),
                Keys.heldQueue,
                fix: false,
                areGroups ? ["groups", verb] : ["jobs"],
                batch.map { .string($0.text) }
            )
            for finding in found {
                guard let job = JobID(finding.mark.subject) else { continue }
                suspects[areGroups ? .group(job) : .job(job), default: []].insert(finding.mark)
            }
            try await pause(options.pause)
        }
    }

    private func lookAtPlace(
        _ key: String,
        _ queue: String,
        _ partition: Int,
        _ options: AuditOptions,
        _ suspects: inout [AuditSuspect: Set<AuditMark>]
    ) async throws(StoreError) {
        var cursor = "0"
        repeat {
            let page = try await command(["ZSCAN", .string(key), .string(cursor), "COUNT", .int(AuditLimits.page)])
            guard let parts = page.array, parts.count == 2, let next = parts[0].string else {
                throw StoreError(.corrupt, "ZSCAN answered something else than a page")
            }
            cursor = next
            let flat = parts[1].array ?? []
            let members = stride(from: 0, to: flat.count, by: 2).compactMap { flat[$0].string }
            if members.isEmpty { continue }
            for finding in try await script(key, queue, fix: false, ["place"], members.map { .string($0) }) {
                suspects[.place(key: key, queue: queue, member: finding.mark.subject), default: []].insert(finding.mark)
            }
            try await pause(options.pause)
        } while cursor != "0"
    }

    private func lookAtQueues(
        _ slices: [QueueSlice],
        _ options: AuditOptions,
        _ report: inout AuditReport,
        _ suspects: inout [AuditSuspect: Set<AuditMark>]
    ) async throws(StoreError) {
        for slice in slices {
            var found = try await look(at: .line(slice), fix: false)
            if !found.isEmpty { suspects[.line(slice)] = Set(found.map(\.mark)) }
            // Progress-only jobs and groups have no limits, and so no counts.
            guard slice.queue != Keys.heldQueue else { continue }
            found = try await look(at: .counts(slice), fix: false)
            if found.contains(where: \.isUncounted), !report.uncounted.contains(slice.queue) { report.uncounted.append(slice.queue) }
            found.removeAll(where: \.isUncounted)
            if !found.isEmpty { suspects[.counts(slice)] = Set(found.map(\.mark)) }
            try await pause(options.pause)
        }
        let known = try await queueNames()
        for queue in Set(slices.map(\.queue)).sorted() where queue != Keys.heldQueue && !known.contains(queue) {
            let found = try await look(at: .registration(queue), fix: false)
            if !found.isEmpty { suspects[.registration(queue)] = Set(found.map(\.mark)) }
        }
    }

    // MARK: One thing

    /// Looks at one thing, and repairs it if that is wanted and possible.
    private func look(at suspect: AuditSuspect, fix: Bool) async throws(StoreError) -> [AuditLook] {
        switch suspect {
        case .job(let job):
            return try await script(
                keys.jobPrefix(partition: keys.partition(of: job)),
                Keys.heldQueue,
                fix: fix,
                ["jobs"],
                [.string(job.text)]
            )
        case .group(let job):
            return try await script(
                keys.jobPrefix(partition: keys.partition(of: job)),
                Keys.heldQueue,
                fix: fix,
                ["groups", verb],
                [.string(job.text)]
            )
        case .place(let key, let queue, let member): return try await script(key, queue, fix: fix, ["place"], [.string(member)])
        case .line(let slice):
            return try await lookAtLine(slice, fix: fix)
        case .counts(let slice):
            return try await script(
                keys.queue(slice.queue, .meta, partition: slice.partition),
                slice.queue,
                fix: fix,
                ["counts"],
                [.string(slice.queue)]
            )
        case .key(let name, let isKnown): return try await lookAtKey(name, isKnown: isKnown, fix: fix)
        case .registration(let queue): return try await lookAtRegistration(queue, fix: fix)
        case .schema: return try await lookAtSchema(fix: fix)
        case .workers: return try await lookAtWorkers(fix: fix)
        }
    }

    private func lookAtLine(_ slice: QueueSlice, fix: Bool) async throws(StoreError) -> [AuditLook] {
        let key = keys.queue(slice.queue, .meta, partition: slice.partition)
        func look() async throws(StoreError) -> [AuditLook] {
            try await script(key, slice.queue, fix: fix, ["line"], [.string(slice.queue)])
        }
        var found = try await look()
        guard fix, let index = found.firstIndex(where: { $0.mark.code == .nobodySweeps }) else { return found }
        for _ in 0..<AuditLimits.sweeps where !found[index].isRepaired {
            _ = try await run(Scripts.reap, keys: [key] + wakeKey(slice.queue), [verb, .string(slice.queue), "0"])
            let isOverdue = try await look().contains { $0.mark.code == .nobodySweeps }
            found[index].isRepaired = !isOverdue
        }
        return found
    }

    private func lookAtKey(_ name: String, isKnown: Bool, fix: Bool) async throws(StoreError) -> [AuditLook] {
        guard try await command(["PTTL", .string(name)]).int == -1 else { return [] }
        let mark = AuditMark(code: isKnown ? .noTTL : .unknownKey, subject: name)
        guard fix, isKnown else { return [AuditLook(mark: mark, isRepaired: false)] }
        // As long as what is not terminal is kept.
        _ = try await command(["PEXPIRE", .string(name), .int(7 * 24 * 3600 * 1000)])
        return [AuditLook(mark: mark, isRepaired: true)]
    }

    private func lookAtRegistration(_ queue: String, fix: Bool) async throws(StoreError) -> [AuditLook] {
        let replies = try await checked(
            [["SISMEMBER", .string(keys.queues), .string(queue)]]
                + (0..<keys.partitions).map { ["ZCARD", .string(keys.queue(queue, .deadlines, partition: $0))] }
        )
        guard replies[0].int == 0, replies.dropFirst().contains(where: { ($0.int ?? 0) > 0 }) else { return [] }
        if fix { try await registerQueues([queue]) }
        return [AuditLook(mark: AuditMark(code: .queueUnregistered, subject: queue), isRepaired: fix)]
    }

    private func lookAtSchema(fix: Bool) async throws(StoreError) -> [AuditLook] {
        let meta = try await command(["HMGET", .string(keys.meta), "v", "partitions"]).array ?? []
        guard meta.count == 2 else { throw StoreError(.corrupt, "HMGET answered something else than two values") }
        if meta[0].int == Self.schemaVersion, meta[1].int == keys.partitions { return [] }
        // Another's values are not ours to overwrite.
        let isMissing = meta.allSatisfy { $0.isNull || $0.int == Self.schemaVersion || $0.int == keys.partitions }
        if fix, isMissing {
            _ = try await checked([
                ["HSETNX", .string(keys.meta), "v", .int(Self.schemaVersion)],
                ["HSETNX", .string(keys.meta), "partitions", .int(keys.partitions)],
            ])
        }
        return [AuditLook(mark: AuditMark(code: .schemaMissing, subject: keys.meta), isRepaired: fix && isMissing)]
    }

    private func lookAtWorkers(fix: Bool) async throws(StoreError) -> [AuditLook] {
        let now = try await command(["TIME"]).unixMs ?? 0
        let reply = try await command([
            "ZRANGEBYSCORE", .string(keys.workers), "-inf", .int(now - AuditLimits.workerLeftoverMs), "LIMIT", "0",
            .int(AuditLimits.findings),
        ])
        let gone = (reply.array ?? []).compactMap(\.string)
        if fix, !gone.isEmpty { _ = try await command(["ZREM", .string(keys.workers)] + gone.map { .string($0) }) }
        return gone.map { AuditLook(mark: AuditMark(code: .workerLeftover, subject: $0), isRepaired: fix) }
    }

    // MARK: The script

    private func script(
        _ key: String,
        _ queue: String,
        fix: Bool,
        _ what: [RedisArgument],
        _ subjects: [RedisArgument]
    ) async throws(StoreError) -> [AuditLook] {
        let reply: RESPValue
        do {
            reply = try await redis.evaluate(
                Scripts.audit,
                keys: [key] + wakeKey(queue),
                arguments: [fix ? "1" : "0"] + what + subjects
            )
        } catch {
            throw StoreError(error)
        }
        return try (reply.array ?? []).map { (finding) throws(StoreError) in
            guard let parts = finding.array, parts.count == 3, let subject = parts[0].string, let name = parts[1].string else {
                throw StoreError(.corrupt, "script audit answered something that is not a finding")
            }
            if name == "not_counted" { return AuditLook(mark: AuditMark(code: .tenantMiscounted, subject: subject), isUncounted: true) }
            guard let code = AuditFinding.Code(rawValue: name) else {
                throw StoreError(.corrupt, "script audit answered an unknown finding \(name)")
            }
            return AuditLook(mark: AuditMark(code: code, subject: subject), isRepaired: parts[2].string == "1")
        }
    }

    private func pause(_ duration: Duration) async throws(StoreError) {
        guard duration > .zero else { return }
        do {
            try await Task.sleep(for: duration)
        } catch {
            throw StoreError(.unavailable, "the audit was cancelled")
        }
    }
}
