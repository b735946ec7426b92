import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// All that a verb may change of a job: its hash, its places, its tenant's counts, its entries of ended jobs.
struct JobStanding: Sendable, Equatable {
    var fields: [String: String] = [:]
    /// The scores in those places of its queue where it stands.
    var places: [String: Double] = [:]
    /// Of its tenant.
    var queued = 0
    var running = 0
    /// Counters of its queue.
    var parked = 0
    var cancelled = 0
    /// Entries in the stream of ended jobs.
    var ends: [String] = []
    var milestones: [String] = []

    static func of(_ job: JobID, _ fixture: StoreFixture) async throws -> JobStanding {
        var standing = JobStanding()
        standing.fields = try await fixture.snapshot(job).fields
        let base = "headway:{0}:queue:\(standing.fields["queue"] ?? "?")"
        let tenant = Owner(standing.fields["owner"] ?? "").tenant
        for place in ["ready", "delayed", "parked:\(tenant)", "leases", "deadlines", "dead"] {
            let score = try await fixture.redis.send(["ZSCORE", .string("\(base):\(place)"), .string(job.text)])
            if let score = score.string.flatMap(Double.init) { standing.places[place] = score }
        }
        let counts = try await fixture.redis.send(["HMGET", .string("\(base):tenant:\(tenant)"), "queued", "running"]).array ?? []
        (standing.queued, standing.running) = (counts.first?.int ?? 0, counts.last?.int ?? 0)
        let counters = try await fixture.redis.send(["HMGET", .string("\(base):meta"), "parked", "cancelled"]).array ?? []
        (standing.parked, standing.cancelled) = (counters.first?.int ?? 0, counters.last?.int ?? 0)
        for entry in try await fixture.redis.send(["XRANGE", "headway:{0}:ended", "-", "+"]).array ?? [] {
            let values = entry.array?.last?.array?.compactMap(\.string) ?? []
            if values.count > 9, values[1] == job.text { standing.ends.append(values[9]) }
        }
        standing.milestones = try await fixture.store.milestones(job, after: 0).map { String(buffer: $0.body) }
        return standing
    }
}

extension StoreFixture {
    /// Redis's own clock, in milliseconds.
    func now() async throws -> Int {
        let parts = try await redis.send(["TIME"]).array?.compactMap(\.int) ?? []
        guard parts.count == 2 else { throw TestSupportError(.system, "TIME is not two numbers") }
        return parts[0] * 1000 + parts[1] / 1000
    }

    /// The lease has run out, though its time is not over.
    func loseLease(_ lease: Lease) async throws {
        let leases = RedisArgument.string("headway:{0}:queue:\(lease.queue):leases")
        #expect(try await redis.send(["ZADD", leases, "XX", "CH", "1", .string(lease.job.text)]).int == 1, "\(lease.job) has no lease")
    }

    /// What an audit finds.
    func findings() async throws -> [String] {
        var options = AuditOptions(fix: false)
        options.confirmAfter = .zero
        return try await store.audit(options).findings.map { "\($0.code.rawValue) \($0.subject)" }
    }

    /// The TTL in milliseconds of every key of the job, by the key's name without its head.
    func ttls(_ job: JobID) async throws -> [String: Int] {
        var ttls: [String: Int] = [:]
        for kind in ["job", "milestones", "log", "preview", "group"] {
            let ttl = try await redis.send(["PTTL", .string("headway:{0}:\(kind):\(job)")]).int ?? -2
            if ttl != -2 { ttls[kind] = ttl }
        }
        return ttls
    }
}
