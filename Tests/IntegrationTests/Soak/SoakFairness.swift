import JobStore
import ProgressCore
import TestSupport
import Testing

/// A queue in which tenants wait side by side while its workers have their troubles.
struct FairQueue: Sendable {
    struct Tenant: Sendable {
        let name: String
        let weight: Int
        let jobs: Int
    }

    let name: String
    let tenants: [Tenant]

    /// Each tenant has jobs by its weight, so that all wait to about the end.
    static let all = [
        FairQueue(name: "even", tenants: [Tenant(name: "one", weight: 1, jobs: 150), Tenant(name: "two", weight: 1, jobs: 150)]),
        FairQueue(name: "uneven", tenants: [Tenant(name: "one", weight: 1, jobs: 100), Tenant(name: "three", weight: 3, jobs: 300)]),
    ]

    func jobNames(of tenant: Tenant) -> [String] { (0..<tenant.jobs).map { "\(name)-\(tenant.name)-\($0)" } }
    var jobNames: [String] { tenants.flatMap(jobNames) }
}

extension Soak {
    /// While two tenants wait, the jobs they were given, divided by their weights, differ by at most 1/w₁ + 1/w₂, plus 1/240 for
    /// rounding (docs/decisions/0010-fair-turns.md), whatever becomes of the workers.
    ///
    /// Faults add nothing to that. A turn is the first claim of a job, and that is taken out of the line and stamped with its time in
    /// one step, whether or not the answer arrives and whoever dies with it. What comes back (lost, handed back, failed) keeps its tag
    /// and stands before everything that has not had its turn: its further claims are given beside the turns and move no tag and no
    /// clock. A stamp is a whole millisecond, in which several claims may fall in an order that nobody knows any more: so the account
    /// is made where the millisecond ends, and is exact there.
    func checkFairness() async throws {
        for queue in FairQueue.all {
            var starts: [(at: Int, tenant: Int)] = []
            var retried = 0
            for (index, tenant) in queue.tenants.enumerated() {
                for name in queue.jobNames(of: tenant) {
                    let fields = try await store.snapshot(#require(JobID(name)), fields: ["started_at", "attempt"])?.fields ?? [:]
                    starts.append((try #require(Int(fields["started_at"] ?? "")), index))
                    if fields["attempt"] != "1" { retried += 1 }
                }
            }
            let lead = Self.largestLead(starts.sorted { $0.at < $1.at }, queue.tenants)
            let bound = queue.tenants.reduce(1 / 240) { $0 + 1 / Double($1.weight) }
            #expect(lead <= bound + 1e-9, "seed \(seed): in \(queue.name) a tenant was \(lead) turns ahead, of at most \(bound)")
            #expect(retried > 0, "seed \(seed): no worker was lost while \(queue.name) was worked off")
        }
    }

    /// How far one of two tenants was ahead at most, in turns of weight 1, while both waited.
    private static func largestLead(_ starts: [(at: Int, tenant: Int)], _ tenants: [FairQueue.Tenant]) -> Double {
        var given = [0, 0]
        var lead = 0.0
        for (index, start) in starts.enumerated() {
            given[start.tenant] += 1
            guard index + 1 < starts.count, starts[index + 1].at > start.at else { continue }
            guard given[0] < tenants[0].jobs, given[1] < tenants[1].jobs else { break }
            lead = max(lead, abs(Double(given[0]) / Double(tenants[0].weight) - Double(given[1]) / Double(tenants[1].weight)))
        }
        return lead
    }
}
