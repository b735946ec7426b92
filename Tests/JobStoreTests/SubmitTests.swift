import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Submits, order, limits, and what Redis itself can do wrong.
@Suite(.timeLimit(.minutes(5))) struct SubmitTests {
    @Test func theSameSubmitTwiceIsOneJob() async throws {
        try await StoreFixture.with { fixture in
            let job = try fixture.job("a")
            let submission = JobSubmission(id: job, queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: "{}")
            #expect(try await fixture.store.submit(submission).isNew)
            #expect(try await !fixture.store.submit(submission).isNew)
            var other = submission
            other.paramsJSON = "{\"x\":1}"
            #expect(await storeError { try await fixture.store.submit(other) }?.code == .conflict)
            other = submission
            other.owner = Owner("t/somebody")
            #expect(await storeError { try await fixture.store.submit(other) }?.code == .conflict)
            _ = try await fixture.claim()
            guard case .empty = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("one job was queued twice")
                return
            }
        }
    }

    @Test func anIdempotencyKeyOutlivesItsJob() async throws {
        try await StoreFixture.with { fixture in
            var submission = JobSubmission(
                id: try fixture.job("k-1"),
                queue: "gpu",
                pipeline: "relief",
                owner: .anonymous,
                paramsJSON: "{}"
            )
            submission.isIdempotent = true
            _ = try await fixture.store.submit(submission)
            _ = try await fixture.redis.send(["DEL", "headway:{0}:job:k-1"])
            let repeated = submission
            #expect(await storeError { try await fixture.store.submit(repeated) }?.code == .gone)
        }
    }

    @Test func higherPriorityGoesFirstAndEqualsKeepTheirOrder() async throws {
        try await StoreFixture.with { fixture in
            var expected: [(Int, Int, String)] = []
            var generator = SeededGenerator(seed: 3)
            for number in 0..<300 {
                let priority = Int.random(in: 0...9, using: &generator)
                _ = try await fixture.submit("j\(number)") { $0.priority = priority }
                expected.append((-priority, number, "j\(number)"))
            }
            expected.sort { ($0.0, $0.1) < ($1.0, $1.1) }
            for (index, job) in expected.enumerated() where index % 29 == 0 {
                #expect(try await fixture.store.position(try fixture.job(job.2), queue: "gpu") == index)
            }
            for job in expected { #expect(try await fixture.claim().lease.job.text == job.2) }
        }
    }

    @Test func aDelayedJobWaitsForItsTime() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("later") { $0.delayMs = 60_000 }
            guard case .empty(let dueMs?) = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("a delayed job was given out early")
                return
            }
            #expect((1...60_000).contains(dueMs))
            _ = try await fixture.submit("soon") { $0.delayMs = 200 }
            try await eventually(within: .seconds(30), "the delayed job") {
                guard case .job(let claim) = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n") else { return false }
                return claim.lease.job.text == "soon"
            }
        }
    }

    @Test func aJobNobodyStartsInTimeFails() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let claimed = try await fixture.submit("claimed-late") { $0.expiresAtMs = 1 }
            guard case .empty = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("an expired job was given out")
                return
            }
            #expect(try await fixture.snapshot(claimed).phase == .failed)
            let reaped = try await fixture.submit("reaped") { $0.expiresAtMs = 1 }
            try await fixture.reap(until: reaped, "the expiry") { $0.phase == .failed }
            #expect(try await fixture.snapshot(reaped).fields["error"]?.contains("expired") == true)
        }
    }

    @Test func waitForWorkWakesForASubmit() async throws {
        try await StoreFixture.with { fixture in
            let clock = ContinuousClock()
            let start = clock.now
            async let waited: Void = fixture.store.waitForWork(queues: ["other", "gpu"], atMost: .seconds(60))
            try await eventually(within: .seconds(5), "the blocked worker") {
                (try await fixture.redis.send(["CLIENT", "LIST"]).string ?? "").contains("cmd=blpop")
            }
            _ = try await fixture.submit("a")
            try await waited
            #expect(clock.now - start < .seconds(50), "it was woken, it did not time out")
        }
    }

    @Test func valuesBeyondTheirLimitsAreRefusedByName() async throws {
        try await StoreFixture.with { fixture in
            let changes: [(String, (inout JobSubmission) -> Void)] = [
                ("queue", { $0.queue = "GPU" }), ("queue", { $0.queue = "" }), ("priority", { $0.priority = 10 }),
                ("priority", { $0.priority = -1 }), ("delay_ms", { $0.delayMs = -1 }), ("max_attempts", { $0.maxAttempts = 0 }),
                ("params", { $0.paramsJSON = String(repeating: "x", count: StoreLimits.paramsBytes + 1) }),
                ("ttl_ms", { $0.ttlMs = 0 }), ("max_runtime_ms", { $0.maxRuntimeMs = -5 }), ("pipeline", { $0.pipeline = "" }),
            ]
            for (name, change) in changes {
                var submission = JobSubmission(id: try fixture.job("bad"), queue: "gpu", pipeline: "p", owner: .anonymous, paramsJSON: "{}")
                change(&submission)
                let bad = submission
                let refusal = await storeError { try await fixture.store.submit(bad) }
                #expect(refusal?.code == .invalid && refusal?.message.hasPrefix(name) == true)
            }
            #expect(try await fixture.store.snapshot(try fixture.job("bad")) == nil)
        }
    }

    @Test func aFullRedisRefusesSubmitsAndLetsJobsEnd() async throws {
        try await StoreFixture.with(RedisServer.Options(maxMemory: "8mb")) { fixture in
            let job = try await fixture.submit("running")
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(10))
            var refusal: StoreError?
            for number in 0..<2000 where refusal == nil {
                do {
                    _ = try await fixture.submit("filler-\(number)", params: "{\"x\":\"\(String(repeating: "y", count: 20_000))\"}")
                } catch let error as StoreError {
                    refusal = error
                    #expect(try await fixture.store.snapshot(try fixture.job("filler-\(number)")) == nil, "nothing half-written")
                }
            }
            #expect(refusal?.code == .unavailable)
            #expect(refusal?.message.contains("maxmemory") == true)
            #expect(try await fixture.store.heartbeat(lease) == .held)
            #expect(try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: []) == .done)
            #expect(try await fixture.snapshot(job).phase == .complete)
        }
    }

    @Test func anEvictingRedisIsRefused() async throws {
        try await StoreFixture.with(RedisServer.Options(maxMemory: "50mb")) { fixture in
            _ = try await fixture.redis.send(["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
            let refusal = await storeError { try await fixture.store.prepare() }
            #expect(refusal?.code == .incompatible && refusal?.message.contains("noeviction") == true)
        }
    }

    @Test func anotherSchemaOrPartitionCountIsRefused() async throws {
        try await StoreFixture.with { fixture in
            let other = JobStore(redis: fixture.redis, keys: Keys(partitions: 4))
            #expect(await storeError { try await other.prepare() }?.code == .incompatible)
            _ = try await fixture.redis.send(["HSET", "headway:meta", "v", "2"])
            #expect(await storeError { try await fixture.store.prepare() }?.code == .incompatible)
        }
    }
}
