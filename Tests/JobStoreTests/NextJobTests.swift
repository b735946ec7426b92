import JobStore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// A worker's next job comes along with the end of its last.
@Suite(.timeLimit(.minutes(2))) struct NextJobTests {
    private func request(_ nonce: String, queue: String = "gpu", labels: [String] = []) -> ClaimRequest {
        ClaimRequest(queue: queue, worker: "w1", nonce: nonce, labels: labels)
    }

    @Test func theNextJobComesWithTheEndAndARepetitionBringsTheSame() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            let jobs = [try await fixture.submit("a"), try await fixture.submit("b")]
            let first = try await fixture.claim(nonce: "n1").lease
            for _ in 0..<3 {
                let (status, next) = try await store.finish(
                    first,
                    as: .complete,
                    resultJSON: "{}",
                    stagesMs: [],
                    then: request("n2")
                )
                #expect(status == .done)
                guard case .job(let claim)? = next else {
                    Issue.record("no job came along")
                    return
                }
                #expect(claim.lease.job == jobs[1] && claim.attempt == 1)
                #expect(try await store.heartbeat(claim.lease) == .held)
            }
            #expect(try await fixture.snapshot(jobs[0]).phase == .complete)
            #expect(try await fixture.redis.send(["XLEN", "headway:{0}:ended"]).int == 1)
            // The memory of the first claim went with its job's end; the second is remembered by that job.
            #expect(try await fixture.redis.send(["KEYS", "headway:{0}:claim:*"]).array?.isEmpty == true)
            // Nobody registered the queue, and nobody sweeps it.
            let findings = try await store.audit(AuditOptions(fix: false)).findings
            #expect(findings.allSatisfy { $0.code == .queueUnregistered || $0.code == .nobodySweeps }, "\(findings)")
        }
    }

    @Test func aRepetitionThatComesLateTakesNoThirdJob() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            for id in ["a", "b", "c"] { _ = try await fixture.submit(id) }
            let first = try await fixture.claim().lease
            func end(_ lease: Lease, then request: ClaimRequest?) async throws -> ClaimOutcome? {
                try await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [], then: request).next
            }
            guard case .job(let second)? = try await end(first, then: request("n")) else {
                Issue.record("no job came along")
                return
            }
            _ = try await end(second.lease, then: nil)
            guard case .empty? = try await end(first, then: request("n")) else {
                Issue.record("a job that nobody may hear of was taken")
                return
            }
            #expect(try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:leases"]).int == 0)
            #expect(try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:ready"]).int == 1)
        }
    }

    /// What the end and the claim write together: counts of tenants, counters, clocks; with limits they are written apart.
    @Test(arguments: [false, true]) func theCountsOfTenantsHoldAlongALine(hasLimit: Bool) async throws {
        try await StoreFixture.with { fixture in
            let (store, tenants) = (fixture.store, ["ann", "ann", "ann", "bob", "ann"])
            if hasLimit { try await store.configure(queue: "gpu", [.maxRunningOf(tenant: "ann", 3)]) }
            for (number, tenant) in tenants.enumerated() {
                _ = try await fixture.submit("job-\(number)") { $0.owner = Owner("\(tenant)/user") }
            }
            var lease = try await fixture.claim().lease
            for left in (0..<tenants.count).reversed() {
                let counts = try await counts(of: Set(tenants), in: fixture)
                #expect(counts.running == 1 && counts.queued == left, "\(counts)")
                let request = ClaimRequest(queue: "gpu", worker: "w1", nonce: "")
                let (_, next) = try await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [], then: request)
                if case .job(let claim)? = next { lease = claim.lease }
            }
            let counts = try await counts(of: Set(tenants), in: fixture)
            #expect(counts.running == 0 && counts.queued == 0, "\(counts)")
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "complete"]).string == "5")
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "fence"]).string == "5")
        }
    }

    private func counts(of tenants: Set<String>, in fixture: StoreFixture) async throws -> (queued: Int, running: Int) {
        var sums = (queued: 0, running: 0)
        for tenant in tenants {
            for (name, add) in [("queued", { sums.queued += $0 }), ("running", { sums.running += $0 })] {
                let text = try await fixture.redis.send(["HGET", .string("headway:{0}:queue:gpu:tenant:\(tenant)"), .string(name)]).string
                add(Int(text ?? "0") ?? .min)
            }
        }
        return sums
    }

    /// Many claims in a short time do not look for delayed jobs each; an empty line is looked at again before it is called empty.
    @Test func aDelayedJobThatIsDueIsFoundAtOnceByAnEmptyLine() async throws {
        try await StoreFixture.with { fixture in
            for number in 0..<200 {
                let job = try await fixture.submit("job-\(number)") { $0.delayMs = 1 }
                let claim: Claim = try await eventually("the job is due") {
                    switch try await fixture.store.claim(queue: "gpu", worker: "w1", nonce: "n-\(number)") {
                    case .job(let claim): return claim
                    case .empty(let dueMs): #expect(dueMs != 0, "a job was due and not given")
                    case .paused: Issue.record("nobody paused the queue")
                    }
                    return nil
                }
                #expect(claim.lease.job == job)
                _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
                let due = try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:delayed"]).int
                #expect(due == 0)
            }
        }
    }

    @Test func whoLostTheLeaseGetsNothing() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let job = try await fixture.submit("a")
            let stale = try await fixture.claim().lease
            try await fixture.reap(until: job, "the lease to run out") { $0.fields["attempt"] == "2" }
            _ = try await fixture.submit("b")
            let (status, next) = try await fixture.store.finish(
                stale,
                as: .complete,
                resultJSON: "{}",
                stagesMs: [],
                then: request("n2")
            )
            #expect(status == .lost && next == nil)
            #expect(try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:ready"]).int == 2)
        }
    }

    @Test func anEmptyOrPausedQueueIsSaid() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            _ = try await fixture.submit("a")
            let first = try await fixture.claim().lease
            _ = try await fixture.submit("later") { $0.delayMs = 60_000 }
            guard
                case (.done, .empty(let dueMs?)?) = try await store.finish(
                    first,
                    as: .complete,
                    resultJSON: nil,
                    stagesMs: [],
                    then: request("n2")
                )
            else {
                Issue.record("not empty")
                return
            }
            #expect((1...60_000).contains(dueMs))
            _ = try await fixture.submit("b")
            let second = try await fixture.claim().lease
            try await store.configure(queue: "gpu", [.paused(true)])
            guard
                case (.done, .paused?) = try await store.finish(
                    second,
                    as: .complete,
                    resultJSON: nil,
                    stagesMs: [],
                    then: request("n3")
                )
            else {
                Issue.record("not paused")
                return
            }
        }
    }
}
