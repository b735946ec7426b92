import JobStore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Turns of tenants in one queue: start-time fair queueing per priority band, limits, parking.
@Suite(.timeLimit(.minutes(5))) struct FairnessTests {
    /// Claims `count` jobs, ends each at once, and returns whose they were.
    private func serve(_ fixture: StoreFixture, _ count: Int) async throws -> [String] {
        var tenants: [String] = []
        for _ in 0..<count {
            let claim = try await fixture.claim()
            tenants.append(claim.owner.tenant)
            _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
        }
        return tenants
    }

    private func submit(_ fixture: StoreFixture, _ tenant: String, _ count: Int, from first: Int = 0, priority: Int = 5) async throws {
        for number in first..<first + count {
            _ = try await fixture.submit("\(tenant)-\(priority)-\(number)") {
                $0.owner = Owner("\(tenant)/u\(number % 3)")
                $0.priority = priority
            }
        }
    }

    @Test func aTenantWithManyJobsDoesNotHoldUpAnother() async throws {
        try await StoreFixture.with { fixture in
            try await submit(fixture, "big", 100)
            try await submit(fixture, "small", 10)
            let served = try await serve(fixture, 20)
            #expect(abs(served.filter { $0 == "small" }.count - 10) <= 1)
            #expect(try await serve(fixture, 90).count == 90)
        }
    }

    /// The bound of start-time fair queueing with unit jobs: while both wait, |nA/wA − nB/wB| ≤ 1/wA + 1/wB at every moment.
    @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64])
    func sharesFollowTheWeights(seed: UInt64) async throws {
        try await StoreFixture.with { fixture in
            var random = SeededGenerator(seed: seed)
            let weights = ["a": Int.random(in: 1...10, using: &random), "b": Int.random(in: 1...10, using: &random), "c": 1]
            for (tenant, weight) in weights { try await fixture.store.configure(queue: "gpu", [.weightOf(tenant: tenant, weight)]) }
            for tenant in ["a", "b", "c"].shuffled(using: &random) { try await submit(fixture, tenant, 60) }
            var served: [String: Double] = [:]
            for tenant in try await serve(fixture, 60) {
                served[tenant, default: 0] += 1
                for (one, weight) in weights {
                    for (other, otherWeight) in weights where one < other {
                        let (w, v) = (Double(weight), Double(otherWeight))
                        let gap = abs((served[one] ?? 0) / w - (served[other] ?? 0) / v)
                        // Costs are rounded to 1/240 of a job.
                        #expect(gap <= 1 / w + 1 / v + 0.1, "seed \(seed), weights \(weights), served \(served)")
                    }
                }
            }
        }
    }

    @Test func whoWasAwayGetsNoCreditForIt() async throws {
        try await StoreFixture.with { fixture in
            try await submit(fixture, "busy", 50)
            _ = try await serve(fixture, 40)
            try await submit(fixture, "late", 30)
            let served = try await serve(fixture, 20)
            #expect(abs(served.filter { $0 == "late" }.count - 10) <= 1)
        }
    }

    @Test func aHigherPriorityGoesBeforeEveryTenant() async throws {
        try await StoreFixture.with { fixture in
            try await submit(fixture, "a", 5)
            try await submit(fixture, "b", 5, priority: 9)
            #expect(try await serve(fixture, 10) == Array(repeating: "b", count: 5) + Array(repeating: "a", count: 5))
        }
    }

    /// A delayed job enters the line when it is due, behind nobody and before nobody on account of its age.
    @Test func delayedJobsEarnNoTurnsWhileTheyWait() async throws {
        try await StoreFixture.with { fixture in
            for number in 0..<30 {
                _ = try await fixture.submit("delayed-\(number)") {
                    $0.owner = Owner("sleeper")
                    $0.delayMs = 1
                }
            }
            try await submit(fixture, "awake", 60)
            let served = try await serve(fixture, 20)
            #expect(served.filter { $0 == "sleeper" }.count <= 11)
        }
    }

    @Test func aTenantAtItsLimitIsParkedAndLetInAgain() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            try await store.configure(queue: "gpu", [.tenantMaxRunning(2)])
            try await submit(fixture, "a", 10)
            try await submit(fixture, "b", 1)
            var claims: [Claim] = []
            for _ in 0..<3 { claims.append(try await fixture.claim()) }
            #expect(claims.map(\.owner.tenant).sorted() == ["a", "a", "b"])
            guard case .empty = try await store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("a third job of the tenant was given out")
                return
            }
            #expect(try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:parked:a"]).int == 8)
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "parked"]).int == 8)
            // New ones go straight to the parked.
            try await submit(fixture, "a", 1, from: 10)
            #expect(try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:ready"]).int == 0)
            // Each end lets one in, whatever kind of end it is.
            let ends: [(Lease) async throws -> Void] = [
                { _ = try await store.finish($0, as: .complete, resultJSON: nil, stagesMs: []) },
                { _ = try await store.fail($0, error: JobError(code: "x", message: "y", isRecoverable: true), stagesMs: []) },
                { _ = try await store.fail($0, error: JobError(code: "x", message: "y", isRecoverable: false), stagesMs: []) },
                { _ = try await store.finish($0, as: .cancelled, resultJSON: nil, stagesMs: []) },
            ]
            var running = claims.filter { $0.owner.tenant == "a" }
            for end in ends {
                try await end(running.removeFirst().lease)
                running.append(try await fixture.claim())
                guard case .empty = try await store.claim(queue: "gpu", worker: "w", nonce: "n\(running.count)") else {
                    Issue.record("more than the limit runs")
                    return
                }
            }
        }
    }

    @Test func aWiderLimitLetsTheParkedIn() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            var settings = fixture.store.settings
            settings.lease = .seconds(60)
            let store = JobStore(redis: fixture.redis, keys: Keys(), settings: settings)
            try await store.configure(queue: "gpu", [.maxRunningOf(tenant: "a", 1)])
            try await submit(fixture, "a", 5)
            _ = try await store.claim(queue: "gpu", worker: "w", nonce: "1")
            guard case .empty = try await store.claim(queue: "gpu", worker: "w", nonce: "2") else {
                Issue.record("more than the limit runs")
                return
            }
            try await store.configure(queue: "gpu", [.maxRunningOf(tenant: "a", nil)])
            var number = 2
            try await eventually("the others run too") {
                _ = try await store.reap(queue: "gpu")
                number += 1
                _ = try await store.claim(queue: "gpu", worker: "w", nonce: "\(number)")
                return try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:leases"]).int == 5
            }
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "parked"]).int == 0)
        }
    }

    @Test func cancellingAParkedJobTakesItOut() async throws {
        try await StoreFixture.with { fixture in
            try await fixture.store.configure(queue: "gpu", [.tenantMaxRunning(1)])
            try await submit(fixture, "a", 3)
            _ = try await fixture.claim()
            _ = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n")
            #expect(try await fixture.store.cancel(try fixture.job("a-5-2"), by: "me", reason: nil) == .cancelled)
            #expect(try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:parked:a"]).int == 1)
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "parked"]).int == 1)
            #expect(
                try await fixture.redis.send(["HMGET", "headway:{0}:queue:gpu:tenant:a", "queued", "running"]).array?.map(\.int) == [1, 1]
            )
        }
    }

    @Test func depthLimitsRefuseWithWhatToDo() async throws {
        try await StoreFixture.with { fixture in
            try await fixture.store.configure(queue: "gpu", [.tenantMaxQueued(2), .maxDepth(3), .maxQueuedOf(tenant: "vip", 3)])
            try await submit(fixture, "a", 2)
            var error = await storeError { try await fixture.submit("a-more") { $0.owner = Owner("a/x") } }
            #expect(error?.code == .full)
            #expect(error?.message.contains("yours") == true)
            try await submit(fixture, "vip", 1)
            error = await storeError { try await fixture.submit("b-more") { $0.owner = Owner("b") } }
            #expect(error?.code == .full)
            #expect(error?.message.contains("3") == true)
            // A repeated submit of what was accepted is still answered.
            _ = try await fixture.submit("a-5-0") { $0.owner = Owner("a/u0") }
        }
    }

    @Test func aQueueRunsNoMoreThanItMay() async throws {
        try await StoreFixture.with { fixture in
            try await fixture.store.configure(queue: "gpu", [.maxRunning(2)])
            try await submit(fixture, "a", 4)
            let first = try await fixture.claim()
            _ = try await fixture.claim()
            guard case .empty = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("a third job was given out")
                return
            }
            _ = try await fixture.redis.send(["DEL", "headway:{wake}:gpu"])
            _ = try await fixture.store.finish(first.lease, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await fixture.redis.send(["LLEN", "headway:{wake}:gpu"]).int == 1, "an idle worker is woken")
            _ = try await fixture.claim()
        }
    }

    @Test func countsSurviveEveryWayOutOfTheQueue() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let store = fixture.store
            try await submit(fixture, "a", 6)
            let error = JobError(code: "x", message: "y", isRecoverable: false)
            _ = try await store.fail(try await fixture.claim().lease, error: error, stagesMs: [])
            _ = try await store.release(try await fixture.claim().lease)
            _ = try await store.cancel(try fixture.job("a-5-5"), by: "me", reason: nil)
            let lost = try await fixture.claim().lease
            try await fixture.reap(until: lost.job, "the next attempt") { $0.phase == .queued && $0.fields["attempt"] == "2" }
            for _ in 0..<4 {
                _ = try await store.finish(try await fixture.claim().lease, as: .complete, resultJSON: nil, stagesMs: [])
            }
            #expect(
                try await fixture.redis.send(["HMGET", "headway:{0}:queue:gpu:tenant:a", "queued", "running"]).array?.map(\.int) == [0, 0]
            )
        }
    }

    /// The hash of a running job is lost: its tenant's place must not be lost with it.
    @Test func aLostJobGivesItsPlaceBack() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            try await fixture.store.configure(queue: "gpu", [.tenantMaxRunning(1)])
            try await submit(fixture, "a", 2)
            let lease = try await fixture.claim().lease
            _ = try await fixture.redis.send(["DEL", .string("headway:{0}:job:\(lease.job)")])
            var number = 0
            try await eventually("the other job runs") {
                _ = try await fixture.store.reap(queue: "gpu")
                number += 1
                if case .job = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n\(number)") { return true }
                return false
            }
        }
    }
}
