import ProgressCore
import RedisLink
import TestSupport
import Testing

@testable import JobStore

/// What workers say of themselves, on a real Redis.
@Suite(.timeLimit(.minutes(1))) struct RegistryTests {
    private func record(_ id: String = "w1", instance: String = "i1") -> WorkerRecord {
        var record = WorkerRecord(
            id: id,
            host: "node-7",
            pid: 42,
            version: "1.2.3",
            queues: ["gpu", "slow"],
            pipeline: "relief",
            concurrency: 2,
            jobs: ["a", "b"]
        )
        record.instance = instance
        record.labels = ["sdxl", "flux.1"]
        record.backend = "command"
        record.gpus = [
            WorkerRecord.GPU(name: #"odd "name" },{ \ é"#, memoryMB: 143_771, memoryUsedMB: 12), WorkerRecord.GPU(name: "GB10"),
        ]
        record.cpus = 16
        record.memoryMB = 128_000
        record.finished = 5
        record.failed = 1
        return record
    }

    @Test func aRecordComesBackWhole() async throws {
        try await StoreFixture.with { fixture in
            var written = record()
            written.slowedReason = "3 jobs in a row failed at once, the last with x"
            written.slowedForMs = 30_000
            #expect(try await fixture.store.registerWorker(written) == WorkerOrders())
            var read = try #require(try await fixture.store.workers().first)
            #expect(read.startedAtMs > 1_600_000_000_000)
            #expect((1...30_000).contains(read.slowedForMs))
            written.startedAtMs = read.startedAtMs
            read.slowedForMs = written.slowedForMs
            (read.upMs, read.silentMs) = (0, 0)
            #expect(read == written)
            #expect(try await fixture.store.queueNames() == ["gpu", "slow"])
            // A pause that is over is no longer shown, and a field that became empty is gone.
            written.slowedReason = nil
            written.labels = []
            try await fixture.store.registerWorker(written)
            let later = try #require(try await fixture.store.workers().first)
            #expect(later.slowedReason == nil && later.slowedForMs == 0 && later.labels == [])
            #expect(later.startedAtMs == written.startedAtMs)
            let fields = try await fixture.redis.send(["HKEYS", .string(fixture.store.keys.worker("w1"))]).array ?? []
            #expect(!fields.contains { ["labels", "slowed_until", "slowed_reason", "slowed_in"].contains($0.string ?? "") })
        }
    }

    @Test func aRecordIsOneCommandAndEndsByItself() async throws {
        var settings = StoreSettings()
        settings.registration = .milliseconds(100)
        try await StoreFixture.with(settings: settings) { fixture in
            // The first time a script is sent whole.
            try await fixture.store.registerWorker(record())
            func calls() async throws -> Int {
                let text = try await fixture.redis.send(["INFO", "commandstats"]).string ?? ""
                let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("cmdstat_evalsha:calls=") }
                return line.flatMap { Int($0.dropFirst("cmdstat_evalsha:calls=".count).prefix { $0.isNumber }) } ?? 0
            }
            let before = try await calls()
            for _ in 0..<10 { try await fixture.store.registerWorker(record()) }
            #expect(try await calls() == before + 10)
            #expect(try await fixture.redis.send(["PTTL", .string(fixture.store.keys.worker("w1"))]).int ?? 0 <= 300)
            try await eventually(within: .seconds(30), "the record is gone") { try await fixture.store.workers().isEmpty }
        }
    }

    @Test func anotherStartOfANameReplacesTheRecordWhole() async throws {
        try await StoreFixture.with { fixture in
            try await fixture.store.registerWorker(record(instance: "old"))
            #expect(try await fixture.store.drainWorker("w1"))
            #expect(try await fixture.store.workers().first?.isDraining == true)
            // The heir is not told what its predecessor was told.
            var heir = record(instance: "new")
            heir.labels = []
            #expect(try await fixture.store.registerWorker(heir) == WorkerOrders(shouldDrain: false, didReplace: true))
            #expect(try await fixture.store.registerWorker(heir) == WorkerOrders())
            #expect(try await fixture.store.workers().first?.isDraining == false)
            // The late goodbye of the old one does not take the heir's record along.
            try await fixture.store.removeWorker("w1", instance: "old")
            #expect(try await fixture.store.workers().map(\.instance) == ["new"])
            try await fixture.store.removeWorker("w1", instance: "new")
            #expect(try await fixture.store.workers().isEmpty)
            #expect(try await fixture.keyNames().contains("headway:workers") == false)
        }
    }

    @Test func aDrainIsKeptUntilTheWorkerWritesAgain() async throws {
        try await StoreFixture.with { fixture in
            #expect(try await fixture.store.drainWorker("nobody") == false)
            #expect(try await fixture.redis.send(["EXISTS", .string(fixture.store.keys.worker("nobody"))]).int == 0)
            try await fixture.store.registerWorker(record())
            #expect(try await fixture.store.drainWorker("w1"))
            #expect(try await fixture.store.registerWorker(record()) == WorkerOrders(shouldDrain: true))
        }
    }

    @Test func lostKeysOfTheRegistryComeBack() async throws {
        try await StoreFixture.with { fixture in
            for key in ["headway:queues", "headway:workers", "headway:worker:w1"] {
                try await fixture.store.registerWorker(record())
                _ = try await fixture.redis.send(["DEL", .string(key)])
                try await fixture.store.registerWorker(record())
                #expect(try await fixture.store.workers().map(\.id) == ["w1"])
                #expect(try await fixture.store.queueNames() == ["gpu", "slow"])
            }
        }
    }

    @Test func workersThatDiedLongAgoAreForgotten() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.redis.send(["ZADD", "headway:workers", "1000", "ancient"])
            try await fixture.store.registerWorker(record())
            #expect(try await fixture.redis.send(["ZRANGE", "headway:workers", "0", "-1"]).array?.compactMap(\.string) == ["w1"])
        }
    }

    @Test func aBadQueueNameIsRefused() async throws {
        try await StoreFixture.with { fixture in
            var bad = record()
            bad.queues = ["No Queue"]
            let error = await storeError { try await fixture.store.registerWorker(bad) }
            #expect(error?.code == .invalid)
        }
    }

    @Test func runningJobsAreShownWithTheirProgress() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("a")
            let waiting = try await fixture.submit("b")
            let claim = try await fixture.claim()
            _ = try await fixture.store.advance(claim.lease, write: 1, to: .generating(40))
            try await fixture.store.registerWorker(record())
            let running = try await fixture.store.runningJobs(of: try await fixture.store.workers())
            #expect(running.map(\.job) == [job.text])
            #expect(running.first?.percent == 40 && running.first?.phase == "GENERATING" && running.first?.stage == "shape_generation")
            #expect(!running.contains { $0.job == waiting.text })
        }
    }

    // MARK: What an idle worker learns from a claim

    private func due(_ fixture: StoreFixture, labels: [String] = []) async throws -> Int? {
        guard case .empty(let due) = try await fixture.store.claim(queue: "gpu", worker: "idle", nonce: "n", labels: labels) else {
            throw TestSupportError(.process, "the queue is not empty")
        }
        return due
    }

    @Test func anEmptyAnswerNamesWhateverComesNext() async throws {
        try await StoreFixture.with { fixture in
            #expect(try await due(fixture) == nil)
            // A lease.
            _ = try await fixture.submit("running")
            let claim = try await fixture.claim()
            #expect((1...20_000).contains(try #require(try await due(fixture))))
            _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await due(fixture) == nil)
            // Something only `reap` does: a job that expires while its queue may run nothing.
            try await fixture.store.configure(queue: "gpu", [.maxRunning(0)])
            let time = try await fixture.redis.send(["TIME"]).array?.first?.int ?? 0
            _ = try await fixture.submit("expiring") { $0.expiresAtMs = time * 1000 + 600_000 }
            let expiry = try #require(try await due(fixture))
            #expect((500_000...600_000).contains(expiry))
        }
    }

    @Test func aResumedQueueWakesAWorkerForItsDelayedJobsToo() async throws {
        try await StoreFixture.with { fixture in
            try await fixture.store.configure(queue: "gpu", [.paused(true)])
            _ = try await fixture.submit("later") { $0.delayMs = 600_000 }
            try await fixture.store.waitForWork(queues: ["gpu"], atMost: .seconds(20))
            try await fixture.store.configure(queue: "gpu", [.paused(false)])
            #expect(try await fixture.redis.send(["LLEN", .string(fixture.store.keys.wake("gpu"))]).int == 1)
        }
    }
}
