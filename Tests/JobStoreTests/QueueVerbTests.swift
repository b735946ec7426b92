import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Pause, drain, purge, retry, dead letters, and workers' labels.
@Suite(.timeLimit(.minutes(5))) struct QueueVerbTests {
    @Test func aPausedQueueGivesNothingOutAndWakesWhenResumed() async throws {
        try await StoreFixture.with { fixture in
            try await fixture.store.configure(queue: "gpu", [.paused(true)])
            _ = try await fixture.submit("a")
            guard case .paused = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("a paused queue gave a job out")
                return
            }
            _ = try await fixture.redis.send(["DEL", "headway:{wake}:gpu"])
            try await fixture.store.configure(queue: "gpu", [.paused(false)])
            #expect(try await fixture.redis.send(["LLEN", "headway:{wake}:gpu"]).int == 1)
            _ = try await fixture.claim()
        }
    }

    @Test func aDrainedQueueEndsWhatItHas() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("a")
            try await fixture.store.configure(queue: "gpu", [.draining(true)])
            #expect(await storeError { try await fixture.submit("b") }?.code == .draining)
            _ = try await fixture.submit("a")
            _ = try await fixture.claim()
            try await fixture.store.configure(queue: "gpu", [.draining(false)])
            _ = try await fixture.submit("b")
        }
    }

    @Test func badSettingsAreRefusedWhole() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            #expect(
                await storeError { try await store.configure(queue: "gpu", [.maxDepth(5), .weightOf(tenant: "a", 0)]) }?.code == .invalid
            )
            #expect(await storeError { try await store.configure(queue: "gpu", [.maxDepth(-1)]) }?.code == .invalid)
            #expect(await storeError { try await store.configure(queue: "GPU!", [.paused(true)]) }?.code == .invalid)
            let depth = try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "max_depth"])
            #expect(depth.isNull)
        }
    }

    @Test(arguments: PurgePlace.allCases)
    func aPurgeEndsWhatWaitsThere(place: PurgePlace) async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            try await store.configure(queue: "gpu", [.tenantMaxRunning(1)])
            for number in 0..<150 { _ = try await fixture.submit("ready-\(number)") { $0.owner = Owner("r") } }
            for number in 0..<150 { _ = try await fixture.submit("delayed-\(number)") { $0.delayMs = 100_000 } }
            _ = try await fixture.submit("parked-running") {
                $0.owner = Owner("p")
                $0.priority = 9
            }
            _ = try await fixture.claim()
            for number in 0..<150 { _ = try await fixture.submit("parked-\(number)") { $0.owner = Owner("p") } }
            for number in 0..<3 {
                let id = try await fixture.submit("dead-\(number)") {
                    $0.priority = 9
                    $0.owner = Owner("d\(number)")
                }
                let error = JobError(code: "x", message: "y", isRecoverable: false)
                let lease = try await fixture.claim().lease
                #expect(lease.job == id)
                _ = try await store.fail(lease, error: error, stagesMs: [])
            }
            #expect(try await store.purge(queue: "gpu", place, by: "ops") == (place == .dead ? 3 : 150))
            let example = try fixture.job("\(place.rawValue)-1")
            if place == .dead {
                #expect(try await store.snapshot(example) == nil)
            } else {
                let snapshot = try await fixture.snapshot(example)
                #expect(snapshot.phase == .cancelled)
                #expect(snapshot.fields["cancel"]?.contains("ops") == true)
            }
            // The others are untouched, and the counts are right.
            for other in PurgePlace.allCases where other != place {
                #expect(try await store.snapshot(try fixture.job("\(other.rawValue)-1"))?.phase == (other == .dead ? .failed : .queued))
            }
            let parked = place == .parked ? 0 : 150
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "parked"]).int == parked)
            #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:tenant:p", "queued"]).int == parked)
        }
    }

    @Test func aRetryIsANewJobOnce() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            let old = try await fixture.submit("old", params: "{\"seed\":1}") {
                $0.priority = 7
                $0.prefer = "sdxl"
            }
            #expect(await storeError { try await store.retry(old, successor: try fixture.job("new")) }?.code == .conflict)
            let lease = try await fixture.claim().lease
            #expect(await storeError { try await store.retry(old, successor: try fixture.job("new")) }?.code == .conflict)
            _ = try await store.fail(lease, error: JobError(code: "x", message: "y", isRecoverable: false), stagesMs: [])
            #expect(try await store.deadLetters(queue: "gpu", limit: 10).map(\.job) == [old])

            let outcome = try await store.retry(old, successor: try fixture.job("new"), paramsJSON: "{\"seed\":2}")
            #expect(outcome.isNew && outcome.head.job.text == "new")
            let fields = try await fixture.snapshot(outcome.head.job).fields
            #expect(
                fields["params"] == "{\"seed\":2}" && fields["retry_of"] == "old" && fields["priority"] == "7" && fields["prefer"] == "sdxl"
            )
            #expect(try await fixture.snapshot(old).fields["retried_as"] == "new")
            #expect(try await store.deadLetters(queue: "gpu", limit: 10).isEmpty)
            // Asked again, perhaps after a lost reply: the same job.
            let again = try await store.retry(old, successor: try fixture.job("newer"))
            #expect(!again.isNew && again.head.job.text == "new")
            #expect(try await store.snapshot(try fixture.job("newer")) == nil)
            #expect(await storeError { try await store.retry(try fixture.job("nobody"), successor: old) }?.code == .unknownJob)
        }
    }

    /// The process died between the two steps of a retry: the next call makes the job that was promised.
    @Test func aRetryThatWasCutIsCompleted() async throws {
        try await StoreFixture.with { fixture in
            let old = try await fixture.submit("old")
            _ = try await fixture.store.cancel(old, by: "me", reason: nil)
            #expect(try await fixture.store.retire(old, successor: try fixture.job("first")) == .retriedAs(try fixture.job("first")))
            let outcome = try await fixture.store.retry(old, successor: try fixture.job("second"))
            #expect(outcome.isNew && outcome.head.job.text == "first")
        }
    }

    // MARK: Labels

    @Test func aWorkerWithTheLabelTakesItsJobsFirst() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            for number in 0..<12 { _ = try await fixture.submit("job-\(number)") { $0.prefer = number % 4 == 3 ? "sdxl" : nil } }
            var order: [String] = []
            for turn in 0..<12 {
                guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "warm", nonce: "\(turn)", labels: ["sdxl"]) else {
                    break
                }
                order.append(claim.lease.job.text)
            }
            #expect(order.prefix(3) == ["job-3", "job-7", "job-11"])
            #expect(order.count == 12)
        }
    }

    /// However many jobs prefer the worker, the first in line is passed over eight times at most.
    @Test func nobodyStarvesBehindALabel() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("plain")
            for number in 0..<30 { _ = try await fixture.submit("wished-\(number)") { $0.prefer = "sdxl" } }
            for turn in 0... {
                guard case .job(let claim) = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "\(turn)", labels: ["sdxl"])
                else { break }
                if claim.lease.job.text == "plain" {
                    #expect(turn == 8)
                    return
                }
            }
            Issue.record("the plain job was never given out")
        }
    }

    @Test func aJobIsKeptForAnIdleWorkerWithItsLabelButNotForLong() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            guard case .empty = try await store.claim(queue: "gpu", worker: "warm", nonce: "w1", labels: ["sdxl"]) else { return }
            // A worker without the label comes first: it is told when to come again, and the other one is woken. On a slow machine it
            // may come when the half second is over.
            var due: Int?
            for attempt in 0..<20 where due == nil {
                _ = try await fixture.submit("a\(attempt)") { $0.prefer = "sdxl" }
                if case .empty(let left) = try await store.claim(queue: "gpu", worker: "cold", nonce: "c\(attempt)") { due = left }
            }
            #expect(try #require(due) <= 500)
            #expect(try await fixture.redis.send(["LLEN", "headway:{wake}:gpu:sdxl"]).int == 1)
            // The warm one never comes: after half a second anyone may have it.
            var number = 100
            try await eventually(within: .seconds(30), "the job is given out") {
                number += 1
                if case .job = try await store.claim(queue: "gpu", worker: "cold", nonce: "c\(number)") { return true }
                return false
            }
        }
    }

    @Test func withoutAnIdleWorkerOfItsLabelAJobGoesToAnyone() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("a") { $0.prefer = "sdxl" }
            #expect(try await fixture.claim().lease.job.text == "a")
            #expect(await storeError { try await fixture.submit("b") { $0.prefer = "with space" } }?.code == .invalid)
        }
    }

    @Test func aLabelWakesItsWorker() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            guard case .empty = try await store.claim(queue: "gpu", worker: "warm", nonce: "w1", labels: ["sdxl"]) else { return }
            // A job is kept for half a second: on a slow machine the other worker may come too late to leave it alone.
            for attempt in 0..<20 {
                _ = try await fixture.submit("a\(attempt)") { $0.prefer = "sdxl" }
                _ = try await fixture.redis.send(["DEL", "headway:{wake}:gpu"])
                guard case .job = try await store.claim(queue: "gpu", worker: "cold", nonce: "c\(attempt)") else { break }
            }
            let clock = ContinuousClock()
            let start = clock.now
            try await store.waitForWork(queues: ["gpu"], labels: ["sdxl"], atMost: .seconds(60))
            #expect(clock.now - start < .seconds(50), "it was woken, it did not time out")
            guard case .job = try await store.claim(queue: "gpu", worker: "warm", nonce: "w2", labels: ["sdxl"]) else {
                Issue.record("the warm worker did not get it")
                return
            }
        }
    }
}
