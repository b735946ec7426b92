import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// The verbs of one job's life, against a real Redis.
@Suite(.timeLimit(.minutes(5))) struct WorkerVerbTests {
    @Test func aRepeatedWriteOfLogLinesCountsOnce() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("a")
            let lease = try await fixture.claim().lease
            func append(_ write: Int?, _ text: String) async throws {
                let lines = [LogLine(stream: "stderr", text: text), LogLine(stream: "stderr", text: "and " + text)]
                #expect(try await fixture.store.appendLog(lease, write: write, lines, droppedBefore: 1) == .held)
            }
            try await append(1, "one")
            try await append(1, "one")
            try await append(2, "two")
            try await append(2, "two")
            try await append(nil, "none")
            try await append(nil, "none")
            let texts = try await fixture.store.logs(lease.job, limit: 20).map(\.text)
            #expect(texts == ["one", "and one", "two", "and two", "none", "and none", "none", "and none"])
        }
    }

    @Test func aJobGoesFromSubmitToComplete() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            let job = try await fixture.submit("a", params: "{\"prompt\":\"a/b \\\"c\\\"\"}")
            let claim = try await fixture.claim()
            #expect(claim.lease.job == job && claim.attempt == 1 && claim.paramsJSON == "{\"prompt\":\"a/b \\\"c\\\"\"}")
            #expect(
                try await store.advance(claim.lease, write: 1, to: .generating(12.34)) == .accepted(seq: 2, wasClamped: false, cancel: nil)
            )
            #expect(
                try await store.advance(claim.lease, write: 2, to: .generating(50)) == .accepted(seq: 3, wasClamped: false, cancel: nil)
            )
            #expect(try await store.heartbeat(claim.lease) == .held)
            #expect(
                try await store.finish(claim.lease, as: .complete, resultJSON: "{\"files\":[]}", stagesMs: [("shape_generation", 7)])
                    == .done
            )
            let snapshot = try await fixture.snapshot(job)
            #expect(snapshot.phase == .complete && snapshot.seq == 4)
            #expect(snapshot.fields["percent"] == "100.0" && snapshot.fields["result"] == "{\"files\":[]}")
            #expect(snapshot.fields["fence"] == nil)
            #expect(snapshot.body.contains("\"stages\":{\"shape_generation\":7}"))
            let milestones = try await store.milestones(job, after: 0)
            #expect(milestones.map(\.seq) == [1, 2, 4])
            #expect(milestones.map(\.phase) == [.queued, .generating, .complete])
        }
    }

    @Test func theSameNonceReturnsTheSameClaim() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("a")
            _ = try await fixture.submit("b")
            let first = try await fixture.claim(nonce: "n")
            let again = try await fixture.claim(nonce: "n")
            #expect(first.lease == again.lease)
            #expect(try await fixture.claim(nonce: "m").lease.job.text == "b")
        }
    }

    @Test func aRepeatedWriteChangesNothing() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(10))
            let before = try await fixture.snapshot(job)
            #expect(
                try await fixture.store.advance(lease, write: 1, to: .generating(90)) == .accepted(seq: 2, wasClamped: false, cancel: nil)
            )
            #expect(try await fixture.snapshot(job).body == before.body)
            _ = try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: []) == .done)
            #expect(try await fixture.snapshot(job).seq == 3)
        }
    }

    @Test func percentNeverFallsWithinAnAttempt() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(40))
            #expect(
                try await fixture.store.advance(lease, write: 2, to: .generating(30, stage: "texture"))
                    == .accepted(seq: 3, wasClamped: true, cancel: nil)
            )
            let snapshot = try await fixture.snapshot(job)
            #expect(snapshot.fields["percent"] == "40.0" && snapshot.fields["stage"] == "texture")
            #expect(try await fixture.store.milestones(job, after: 2).map(\.seq) == [3], "the milestone of a clamped write still passes")
            await #expect(throws: StoreError.self) {
                try await fixture.store.advance(lease, write: 3, to: ProgressState(phase: .analyzing, percent: 50))
            }
            _ = try await fixture.store.advance(lease, write: 4, to: .generating(100))
            #expect(try await fixture.snapshot(job).fields["percent"] == "99.9", "100 is for COMPLETE")
        }
    }

    @Test func whoLostTheLeaseChangesNothing() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let store = fixture.store
            let job = try await fixture.submit("a")
            let stale = try await fixture.claim(worker: "slow").lease
            _ = try await store.advance(stale, write: 1, to: .generating(70))
            try await fixture.reap(until: job, "the lost lease") { $0.phase == .queued }
            let owner = try await fixture.claim(worker: "fast")
            #expect(owner.attempt == 2)
            _ = try await store.advance(owner.lease, write: 1, to: .generating(5))
            let before = try await fixture.snapshot(job)
            #expect(try await store.advance(stale, write: 2, to: .generating(99)) == .lost)
            #expect(try await store.heartbeat(stale) == .lost)
            #expect(try await store.finish(stale, as: .complete, resultJSON: "{}", stagesMs: []) == .lost)
            #expect(try await store.fail(stale, error: JobError(code: "x", message: "", isRecoverable: false), stagesMs: []) == .lost)
            #expect(try await store.release(stale) == .lost)
            #expect(try await store.appendLog(stale, write: nil, [LogLine(stream: "stderr", text: "x")], droppedBefore: 0) == .lost)
            #expect(try await fixture.snapshot(job).fields == before.fields)
            #expect(before.fields["percent"] == "5.0", "a new attempt starts lower and says so")
        }
    }

    @Test func aWorkerLostThreeTimesEndsTheJob() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let job = try await fixture.submit("a") { $0.maxAttempts = 2 }
            for _ in 0..<2 {
                _ = try await fixture.claim()
                try await fixture.reap(until: job, "the lost lease") { $0.fields["fence"] == nil }
            }
            let snapshot = try await fixture.snapshot(job)
            #expect(snapshot.phase == .failed)
            #expect(snapshot.fields["error"]?.contains("worker_lost") == true)
            #expect(try await fixture.store.queues().isEmpty)
            try await fixture.store.registerQueues(["gpu"])
            #expect(
                try await fixture.store.queues() == [QueueStatus(name: "gpu", ready: 0, delayed: 0, running: 0, dead: 1, isPaused: false)]
            )
        }
    }

    @Test func aFailureRetriesWithABackOffThenDies() async throws {
        var settings = StoreSettings()
        // A twentieth of the jitter's range: 5 s become 250 ms, and the fence is known.
        settings.random = { 50_000 }
        try await StoreFixture.with(settings: settings) { fixture in
            let job = try await fixture.submit("a") { $0.maxAttempts = 2 }
            let error = JobError(code: "generator_failed", message: "exit status 1", isRecoverable: true)
            let first = try await fixture.claim().lease
            guard case .willRetry(2, let delayMs) = try await fixture.store.fail(first, error: error, stagesMs: []) else {
                Issue.record("the first failure should be retried")
                return
            }
            #expect(delayMs == 250)
            #expect(first.fence == "c350:1")
            #expect(try await fixture.store.fail(first, error: error, stagesMs: []) == .willRetry(attempt: 2, delayMs: delayMs))
            var second: Claim?
            try await eventually(within: .seconds(10), "the retry is due") {
                guard case .job(let claim) = try await fixture.store.claim(queue: "gpu", worker: "w", nonce: "r") else { return false }
                second = claim
                return true
            }
            let lease = try #require(second).lease
            #expect(try await fixture.store.fail(lease, error: error, stagesMs: []) == .dead)
            #expect(try await fixture.store.fail(lease, error: error, stagesMs: []) == .dead)
            #expect(try await fixture.snapshot(job).phase == .failed)
        }
    }

    @Test func whatNoRetryHelpsFailsAtOnce() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim().lease
            let error = JobError(code: "bad_image", message: "not an image", isRecoverable: false)
            #expect(try await fixture.store.fail(lease, error: error, stagesMs: []) == .dead)
            #expect(
                try await fixture.snapshot(job).body.contains(
                    "\"error\":{\"code\":\"bad_image\",\"message\":\"not an image\",\"recoverable\":false}"
                )
            )
        }
    }

    @Test func aReleasedJobIsNextAndUsesNoAttempt() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("a") { $0.maxAttempts = 1 }
            _ = try await fixture.submit("b")
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(30))
            #expect(try await fixture.store.release(lease) == .held)
            #expect(try await fixture.store.release(lease) == .held)
            #expect(try await fixture.store.position(job, queue: "gpu") == 0)
            let next = try await fixture.claim()
            #expect(next.lease.job == job && next.attempt == 2 && next.maxAttempts == 2)
        }
    }

    @Test func cancelEndsWaitingJobsAndAsksRunningOnes() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let store = fixture.store
            #expect(try await store.cancel(try fixture.job("nobody"), by: "me", reason: nil) == .absent)
            let waiting = try await fixture.submit("waiting")
            #expect(try await store.cancel(waiting, by: "me", reason: "no \"need\"") == .cancelled)
            #expect(try await store.cancel(waiting, by: "me", reason: nil) == .alreadyEnded(.cancelled))
            let delayed = try await fixture.submit("delayed") { $0.delayMs = 60_000 }
            #expect(try await store.cancel(delayed, by: "me", reason: nil) == .cancelled)
            let running = try await fixture.submit("running")
            let lease = try await fixture.claim().lease
            #expect(try await store.cancel(running, by: "me", reason: "late") == .requested(first: true))
            #expect(try await store.cancel(running, by: "you", reason: nil) == .requested(first: false))
            let request = CancelRequest(by: "me", reason: "late")
            #expect(try await store.heartbeat(lease) == .cancelRequested(request))
            guard case .accepted(_, _, request) = try await store.advance(lease, write: 1, to: .generating(1)) else {
                Issue.record("an advance should carry the cancel")
                return
            }
            #expect(try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) == .done)
            #expect(try await fixture.snapshot(running).body.contains("\"cancel\":{\"by\":\"me\",\"reason\":\"late\""))
        }
    }

    @Test func anUnacknowledgedCancelIsForced() async throws {
        var settings = StoreFixture.quickSettings
        settings.lease = .seconds(20)
        try await StoreFixture.with(settings: settings) { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.cancel(job, by: "me", reason: nil)
            try await fixture.reap(until: job, "the forced cancel") { $0.phase == .cancelled }
            #expect(try await fixture.snapshot(job).fields["cancel"]?.contains("\"forced\":true") == true)
            #expect(try await fixture.store.heartbeat(lease) == .lost)
        }
    }
}
