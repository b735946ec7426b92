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
                #expect(claim.lease.job == jobs[1] && claim.attempt == 1 && claim.isLast)
                #expect(try await store.heartbeat(claim.lease) == .held)
            }
            #expect(try await fixture.snapshot(jobs[0]).phase == .complete)
            #expect(try await fixture.redis.send(["XLEN", "headway:{0}:ended"]).int == 1)
            // The memory of the first claim went with its job's end, that of the second is needed.
            #expect(try await fixture.redis.send(["EXISTS", "headway:{0}:claim:n1"]).int == 0)
            #expect(try await fixture.redis.send(["EXISTS", "headway:{0}:claim:n2"]).int == 1)
            #expect(try await store.audit(AuditOptions(fix: false)).isClean)
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
