import ProgressCore
import RedisLink
import TestSupport
import Testing

@testable import JobStore

@Suite struct WaitTests {
    // MARK: Frames

    private func frame(_ random: inout SeededGenerator) -> WaitFrame {
        func outlook() -> WaitOutlook {
            if random.chance(20) { return .unknown(random.pick(Array(WaitReason.allCases))) }
            return .wait(
                ms: Int.random(in: 0...9_000_000, using: &random),
                lowMs: Int.random(in: 0...9000, using: &random),
                highMs: Int.random(in: 0...9_000_000, using: &random)
            )
        }
        return WaitFrame(
            lines: (0..<Int.random(in: 1...4, using: &random)).map { _ in
                WaitFrame.Line(
                    reason: random.chance(20) ? random.pick(Array(WaitReason.allCases)) : nil,
                    places: (0..<Int.random(in: 0...40, using: &random)).map { _ in outlook() }
                )
            }
        )
    }

    @Test func framesSurviveTheirText() {
        for seed in 0..<3000 {
            var random = SeededGenerator(seed)
            let made = frame(&random)
            #expect(WaitFrame(text: made.text) == made, "seed \(seed)")
        }
    }

    @Test func damagedFramesAreNoFramesOrOrdinaryOnes() {
        for seed in 0..<3000 {
            var random = SeededGenerator(seed)
            var bytes = Array(frame(&random).text.utf8)
            for _ in 0..<3 where !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            guard let read = WaitFrame(text: String(decoding: bytes, as: UTF8.self)) else { continue }
            for line in read.lines {
                for case .wait(let ms, let low, let high) in line.places { #expect(ms >= 0 && low >= 0 && high >= 0, "seed \(seed)") }
            }
        }
        for text in ["", "1", "2\n-", "1\nx", "1\n- 1,2", "1\n- 1,2,-3", "1\n- 99999999999999999999,1,1"] {
            #expect(WaitFrame(text: text) == nil, "\(text)")
        }
    }

    @Test func anOutlookFollowsThePlace() {
        let near = WaitOutlook.wait(ms: 10, lowMs: 5, highMs: 20)
        let frame = WaitFrame(lines: [.init(places: [near]), .init(reason: .paused, places: [near])])
        #expect(WaitFrame.outlook(frame, at: .inLine(ahead: 0), partition: 0) == near)
        #expect(WaitFrame.outlook(frame, at: .inLine(ahead: 1), partition: 0) == nil)
        #expect(WaitFrame.outlook(frame, at: .inLine(ahead: 600), partition: 0) == .unknown(.farBack))
        #expect(WaitFrame.outlook(frame, at: .inLine(ahead: 0), partition: 1) == .unknown(.paused))
        #expect(WaitFrame.outlook(frame, at: .inLine(ahead: 0), partition: 7) == nil)
        #expect(WaitFrame.outlook(nil, at: .inLine(ahead: 0), partition: 0) == nil)
        #expect(WaitFrame.outlook(nil, at: .heldByTenantLimit(ownAhead: 0), partition: 0) == .unknown(.tenantLimit))
        #expect(WaitFrame.outlook(nil, at: .notDue(atMs: 1), partition: 0) == .unknown(.notDue))
    }

    // MARK: Turns

    @Test func oneHasTheTurnAndTheOthersGetWhatItSaid() async throws {
        try await StoreFixture.with { fixture in
            // Turns are a matter of time: on a machine that is too busy to ask twice within a tick nothing is shown, and it is tried again.
            var number = 0
            try await eventually(within: .seconds(120), "a machine that is quick enough") {
                number += 1
                return try await takeTurns(fixture, queue: "gpu-\(number)")
            }
        }
    }

    /// False when it took too long to say anything.
    private func takeTurns(_ fixture: StoreFixture, queue: String) async throws -> Bool {
        let store = fixture.store
        let key = "headway:{wait:\(queue)}:frame"
        func age(_ ms: Int) async throws {
            let begun = try await fixture.redis.send(["HGET", .string(key), "begun"]).int ?? 0
            _ = try await fixture.redis.send(["HSET", .string(key), "begun", .int(begun - ms)])
        }
        let start = ContinuousClock.now
        var learned = WaitCalibration()
        learned.learn(.init(waitMs: 1000, lowMs: 900, highMs: 1100, sigma: 0.1), actualMs: 9000)
        let frame = WaitFrame(lines: [.init(places: [.wait(ms: 1, lowMs: 0, highMs: 2)])])
        var turns = [try await store.takeWaitTurn(queue: queue, by: "a"), try await store.takeWaitTurn(queue: queue, by: "b")]
        try await store.putWaitFrame(frame, queue: queue, calibration: learned)
        turns += [try await store.takeWaitTurn(queue: queue, by: "b"), try await store.takeWaitTurn(queue: queue, by: "a")]
        // The tick is over: still its holder's, and once more so; then it has been silent for long.
        try await age(StoreLimits.forecastTickMs)
        turns += [try await store.takeWaitTurn(queue: queue, by: "b"), try await store.takeWaitTurn(queue: queue, by: "a")]
        try await age(StoreLimits.forecastHoldMs)
        turns.append(try await store.takeWaitTurn(queue: queue, by: "c"))
        guard ContinuousClock.now - start < .milliseconds(StoreLimits.forecastTickMs - 100) else { return false }
        #expect(
            turns == [
                .mine(WaitCalibration()), .theirs(nil), .theirs(frame), .early(frame), .theirs(frame), .mine(learned), .mine(learned),
            ]
        )
        for key in ["frame", "calibration"] {
            #expect((try await fixture.redis.send(["PTTL", .string("headway:{wait:\(queue)}:\(key)")]).int ?? -1) > 0, "\(key)")
        }
        // A clock that was set back does not stop the turns.
        _ = try await fixture.redis.send(["HSET", .string(key), "begun", "9999999999999"])
        #expect(try await store.takeWaitTurn(queue: queue, by: "d") == .mine(learned))
        return true
    }

    // MARK: Scenes

    private func register(_ store: JobStore, _ id: String, queues: [String] = ["gpu"], _ change: (inout WorkerRecord) -> Void = { _ in })
        async throws
    {
        var record = WorkerRecord(id: id, host: "h", pid: 1, version: "1", queues: queues, pipeline: "relief", concurrency: 2)
        change(&record)
        _ = try await store.registerWorker(record)
    }

    @Test func aSceneHasWorkersWhatTheyDoAndWhoWaits() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            try await register(store, "w1")
            try await register(store, "drains") { $0.isDraining = true }
            try await register(store, "other", queues: ["cpu"])
            try await register(store, "slow") {
                $0.slowedReason = "disk"
                $0.slowedForMs = 60_000
            }
            for name in ["a", "b", "c"] {
                _ = try await fixture.submit(name) {
                    $0.jobClass = "big"
                    $0.isCold = true
                    $0.planJSON = "[{\"stage\":\"x\",\"units\":3}]"
                }
            }
            let claim = try await fixture.claim(worker: "w1")
            var state = ProgressState(phase: .generating, percent: 10)
            (state.etaMs, state.etaLowMs, state.etaHighMs) = (9000, 8000, 11_000)
            _ = try await store.advance(claim.lease, write: 1, to: state)
            let b = try fixture.job("b")
            let scene = try await store.waitScene(queue: "gpu", known: [b], told: [claim.lease.job, b])
            #expect(Set(scene.workers.map(\.id)) == ["w1", "slow"])
            let slow = try #require(scene.workers.first { $0.id == "slow" })
            #expect(slow.slowedForMs > 0 && slow.slowedForMs <= 60_000 && slow.concurrency == 2)
            #expect(scene.lines.count == 1 && scene.lines[0].jobs.map(\.job.text) == ["b", "c"] && scene.lines[0].jobs[0].band == 4)
            let running = try #require(scene.running.first)
            #expect(scene.running.count == 1 && running.job.text == "a" && running.worker == "w1" && running.isOurs)
            #expect(running.told?.etaMs == 9000 && running.told?.lowMs == 8000 && running.told?.highMs == 11_000)
            #expect(running.facts == WaitScene.Facts(pipeline: "relief", jobClass: "big", isCold: true))
            #expect(scene.facts.count == 1, "what is known is not read again")
            #expect(
                scene.facts[try fixture.job("c")]
                    == WaitScene.Facts(pipeline: "relief", jobClass: "big", isCold: true, plan: "[{\"stage\":\"x\",\"units\":3}]")
            )
            #expect(scene.begunAtMs.keys.map(\.text) == ["a"])
            try await store.configure(queue: "gpu", [.maxRunning(3)])
            try await store.configure(queue: "gpu", [.paused(true)])
            let paused = try await store.waitScene(queue: "gpu", known: [], told: [])
            #expect(paused.lines[0].isPaused && paused.lines[0].maxRunning == 3)
        }
    }

    /// A worker that estimates, or a hash from elsewhere: no time is taken from it.
    @Test func anEstimateThatIsNoneIsNotBelieved() async throws {
        try await StoreFixture.with { fixture in
            try await register(fixture.store, "w1")
            _ = try await fixture.submit("a")
            let claim = try await fixture.claim(worker: "w1")
            var state = ProgressState(phase: .generating, percent: 10)
            (state.etaMs, state.isEstimating) = (9000, true)
            _ = try await fixture.store.advance(claim.lease, write: 1, to: state)
            let scene = try await fixture.store.waitScene(queue: "gpu", known: [], told: [])
            #expect(scene.running.count == 1 && scene.running[0].told == nil)
        }
    }

    @Test func aDelayedJobIsNotDue() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("later") { $0.delayMs = 3_600_000 }
            let places = try await fixture.store.places([PlaceQuestion(job: job, queue: "gpu", owner: .anonymous)])
            guard case .notDue(let at)?? = places.first else {
                Issue.record("\(places)")
                return
            }
            let created = Int(try await fixture.snapshot(job).fields["created_at"] ?? "") ?? 0
            #expect(at == created + 3_600_000)
        }
    }
}
