import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Nothing of a job is kept for ever (invariant 11), and nothing that is alive expires.
@Suite(.timeLimit(.minutes(5))) struct RetentionTests {
    @Test func afterTheTTLsOnlyTheNamedKeysAreLeft() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let store = fixture.store
            try await store.registerQueues(["gpu"])
            let done = try await fixture.submit("done") { $0.ttlMs = 50 }
            let lease = try await fixture.claim().lease
            _ = try await store.advance(lease, write: 1, to: .generating(50))
            _ = try await store.appendLog(lease, write: nil, [LogLine(stream: "stderr", text: "hello")], droppedBefore: 2)
            _ = try await store.setPreview(lease, image: ByteBuffer(bytes: [0xff, 0xd8, 0xff, 0xe0]), contentType: "image/jpeg")
            _ = try await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            let cancelled = try await fixture.submit("cancelled") { $0.ttlMs = 50 }
            _ = try await store.cancel(cancelled, by: "me", reason: nil)
            try await eventually(within: .seconds(5), "the jobs expire") {
                let first = try await store.snapshot(done)
                let second = try await store.snapshot(cancelled)
                return first == nil && second == nil
            }
            // What is left without a TTL must be the keys that the contract names.
            var lasting: [String] = []
            for key in try await fixture.keyNames() where try await fixture.redis.send(["PTTL", .string(key)]).int == -1 {
                lasting.append(key)
            }
            #expect(
                lasting == ["headway:meta", "headway:queues", "headway:{0}:ended", "headway:{0}:queue:gpu:meta", "headway:{wake}:gpu"]
            )
        }
    }

    @Test func everyKeyOfALivingJobHasATTL() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("waiting")
            _ = try await fixture.submit("running") { $0.priority = 9 }
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(5))
            for key in try await fixture.keyNames() where key.contains(":job:") || key.contains(":milestones:") {
                let ttl = try await fixture.redis.send(["PTTL", .string(key)]).int ?? -1
                #expect(ttl > 6 * 24 * 3600 * 1000, "\(key) would expire in \(ttl) ms")
            }
        }
    }

    @Test func deadLettersKeepAllTheirKeysSevenDays() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("a") { $0.ttlMs = 1000 }
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.appendLog(lease, write: nil, [LogLine(stream: "stderr", text: "boom")], droppedBefore: 0)
            _ = try await fixture.store.fail(lease, error: JobError(code: "x", message: "y", isRecoverable: false), stagesMs: [])
            for key in ["job", "milestones", "log"] {
                let ttl = try await fixture.redis.send(["PTTL", .string("headway:{0}:\(key):a")]).int ?? -1
                #expect(ttl > 6 * 24 * 3600 * 1000)
            }
        }
    }

    @Test func aJobThatFellOutOfItsPlaceIsPutBack() async throws {
        var settings = StoreFixture.quickSettings
        settings.lease = .seconds(20)
        try await StoreFixture.with(settings: settings) { fixture in
            let job = try await fixture.submit("a")
            _ = try await fixture.redis.send(["DEL", "headway:{0}:queue:gpu:ready"])
            // The hourly look at waiting jobs, brought forward.
            _ = try await fixture.redis.send(["ZADD", "headway:{0}:queue:gpu:deadlines", "1", "a"])
            _ = try await fixture.store.reap(queue: "gpu")
            #expect(try await fixture.claim().lease.job == job)
            // The same for a running one whose lease entry is gone.
            _ = try await fixture.redis.send(["DEL", "headway:{0}:queue:gpu:leases"])
            _ = try await fixture.redis.send(["ZADD", "headway:{0}:queue:gpu:deadlines", "1", "a"])
            _ = try await fixture.store.reap(queue: "gpu")
            #expect(try await fixture.claim().attempt == 2)
        }
    }

    @Test func logsAreCappedByBytesAndCountDrops() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim().lease
            let line = String(repeating: "x", count: StoreLimits.logLineBytes)
            for _ in 0..<5 {
                _ = try await fixture.store.appendLog(
                    lease,
                    write: nil,
                    Array(repeating: LogLine(stream: "stderr", text: line), count: 100),
                    droppedBefore: 3
                )
            }
            _ = try await fixture.store.appendLog(lease, write: nil, [LogLine(stream: "stdout", text: "last")], droppedBefore: 0)
            let lines = try await fixture.store.logs(job, limit: 10_000)
            #expect(lines.last?.text == "last")
            #expect(lines.reduce(0) { $0 + $1.text.utf8.count } <= 256 * 1024)
            let entries = try await fixture.redis.send(["XREVRANGE", "headway:{0}:log:a", "+", "-", "COUNT", "1"]).array
            #expect(entries?.first?.array?[1].array?[7].string == "15")
        }
    }
}
