import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

/// What a forecast makes of workers, running jobs and lines.
@Suite struct WaitPassTests {
    /// Jobs that took ten seconds so far.
    private let ten = WaitScene.Facts(pipeline: "p", plan: "[{\"stage\":\"x\"}]")
    private let pipelines = ["p": Pipeline(name: "p", stages: [])]
    private let statistics: LearnedStatistics = {
        var statistics = LearnedStatistics()
        for _ in 0..<10 {
            var tracker = ProgressTracker(
                pipeline: Pipeline(name: "p", stages: []),
                plan: [PlannedStage(name: "x")],
                statistics: statistics,
                hints: JobHints(worker: "w0"),
                startedAtMs: 0
            )
            tracker.apply(ProgressUpdate(stage: "x"), atMs: 0)
            statistics.learn(tracker.finish(atMs: 10_000))
        }
        return statistics
    }()

    private func scene(
        workers: Int,
        running: [Int] = [],
        waiting: Int,
        change: (inout WaitScene) -> Void = { _ in }
    ) -> (WaitScene, [JobID: WaitScene.Facts]) {
        var scene = WaitScene()
        scene.workers = (0..<workers).map { WaitScene.Worker(id: "w\($0)", concurrency: 1) }
        for (index, eta) in running.enumerated() {
            scene.running.append(
                WaitScene.Running(
                    job: HubWorld.job("r\(index)"),
                    worker: "w\(index)",
                    facts: ten,
                    told: .init(etaMs: eta, lowMs: eta * 9 / 10, highMs: eta * 11 / 10, ageMs: 0)
                )
            )
        }
        var line = WaitScene.Line()
        line.jobs = (0..<waiting).map { (HubWorld.job("q\($0)"), 4) }
        scene.lines = [line]
        change(&scene)
        let facts = Dictionary(uniqueKeysWithValues: scene.lines.flatMap(\.jobs).map { ($0.job, ten) })
        return (scene, facts)
    }

    private func forecast(_ scene: (WaitScene, [JobID: WaitScene.Facts])) -> WaitPass.Outcome {
        var pass = WaitPass(pipelines: pipelines, statistics: ["p": statistics], calibration: WaitCalibration())
        return pass.forecast(scene.0, facts: scene.1)
    }

    private func waits(_ outcome: WaitPass.Outcome, line: Int = 0) -> [Int?] {
        outcome.frame.lines[line].places.map { if case .wait(let ms, _, _) = $0 { ms } else { nil } }
    }

    @Test func withoutAWorkerThereIsAReason() {
        let outcome = forecast(scene(workers: 0, waiting: 3))
        #expect(outcome.frame == WaitFrame(lines: [.init(reason: .noWorker)]) && outcome.waits.isEmpty)
    }

    @Test func aPausedQueueSaysSo() {
        let outcome = forecast(scene(workers: 2, waiting: 3) { $0.lines[0].isPaused = true })
        #expect(outcome.frame == WaitFrame(lines: [.init(reason: .paused)]))
        #expect(forecast(scene(workers: 0, waiting: 1) { $0.lines[0].isPaused = true }).frame.lines[0].reason == .paused)
    }

    @Test func anIdleWorkerTakesTheNextAtOnceAndTheLineFollows() throws {
        let waits = try waits(forecast(scene(workers: 2, running: [4000], waiting: 3))).map { try #require($0) }
        #expect(waits[0] == 0)
        #expect(abs(waits[1] - 4000) < 400, "\(waits)")
        #expect(waits[2] > 9000 && waits[2] < 20_000, "\(waits)")
    }

    @Test func theLimitOfRunningJobsHoldsFreeWorkersBack() throws {
        let free = try #require(waits(forecast(scene(workers: 3, running: [5000], waiting: 2)))[1])
        #expect(free == 0)
        let outcome = forecast(scene(workers: 3, running: [5000], waiting: 2) { $0.lines[0].maxRunning = 1 })
        #expect(abs(try #require(waits(outcome)[0]) - 5000) < 500)
    }

    @Test func aSlowedWorkerCountsFromWhenItGoesOn() throws {
        let outcome = forecast(scene(workers: 1, waiting: 1) { $0.workers[0].slowedForMs = 7000 })
        #expect(waits(outcome)[0] == 7000)
    }

    @Test func bandsGoBeforePartitions() throws {
        let outcome = forecast(
            scene(workers: 1, waiting: 0) { scene in
                var first = WaitScene.Line()
                first.jobs = [(HubWorld.job("a"), 4), (HubWorld.job("b"), 4)]
                var second = WaitScene.Line()
                second.jobs = [(HubWorld.job("c"), 0), (HubWorld.job("d"), 4)]
                var third = WaitScene.Line()
                (third.jobs, third.isPaused) = ([(HubWorld.job("e"), 0)], true)
                scene.lines = [first, second, third]
            }
        )
        let order = ["c", "a", "b", "d"].map { outcome.waits[HubWorld.job($0)]?.waitMs ?? -1 }
        #expect(order[0] == 0 && order == order.sorted() && order[1] > 0, "\(order)")
        #expect(outcome.frame.lines[2].reason == .paused && outcome.frame.lines[0].places.count == 2)
    }

    @Test func jobsNobodyKnowsAreLearnedFirst() {
        var scene = scene(workers: 1, waiting: 3)
        scene.1 = scene.1.mapValues { _ in WaitScene.Facts(pipeline: "never seen") }
        let places = forecast(scene).frame.lines[0].places
        #expect(places[0] == .wait(ms: 0, lowMs: 0, highMs: 0) && places[1] == .unknown(.learning), "\(places)")
    }

    /// Whatever stands in Redis: an ordinary frame, in order, bounded.
    @Test func anySceneGivesAnOrdinaryFrame() {
        for seed in 0..<1500 {
            var random = SeededGenerator(seed)
            var world = scene(
                workers: Int.random(in: 0...6, using: &random),
                running: (0..<Int.random(in: 0...8, using: &random)).map { _ in Int.random(in: 0...900_000, using: &random) },
                waiting: Int.random(in: 0...60, using: &random)
            )
            for index in world.0.running.indices {
                if random.chance(30) { world.0.running[index].told = nil }
                world.0.running[index].elapsedMs = random.pick([0, 5, 100_000, 1 << 50])
                world.0.running[index].isOurs = random.chance(80)
                world.0.running[index].facts.pipeline = random.pick(["p", "", "x|y", String(repeating: "ä", count: 500)])
            }
            for index in world.0.workers.indices { world.0.workers[index].concurrency = Int.random(in: 1...9, using: &random) }
            if random.chance(30) { world.0.lines[0].maxRunning = Int.random(in: 0...4, using: &random) }
            for job in world.1.keys.sorted(by: { $0.text < $1.text }) where random.chance(20) {
                world.1[job] =
                    random.chance(50)
                    ? nil
                    : WaitScene.Facts(pipeline: "p", plan: random.pick(["", "[", "[1,{}]", "[{\"stage\":\"y\",\"declared_ms\":-1e99}]"]))
            }
            let outcome = forecast(world)
            let line = outcome.frame.lines[0]
            #expect(line.reason == nil || line.places.isEmpty)
            #expect(world.0.workers.isEmpty || line.places.count == world.0.lines[0].jobs.count, "seed \(seed)")
            let waits = line.places.compactMap { if case .wait(let ms, let low, let high) = $0 { (ms, low, high) } else { nil } }
            #expect(waits.allSatisfy { $0.0 >= 0 && $0.1 <= $0.0 && $0.0 <= $0.2 }, "seed \(seed)")
            #expect(zip(waits, waits.dropFirst()).allSatisfy { $0.0 <= $1.0 }, "seed \(seed)")
        }
    }

    // MARK: When it is told

    @Test func aWaitThatGoesDownByItselfIsToldNowAndThen() {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        func told(_ ms: Int, _ seconds: Double, ahead: Int = 3) -> ToldPlace {
            ToldPlace(
                place: .inLine(ahead: ahead),
                outlook: .wait(ms: ms, lowMs: ms / 2, highMs: ms * 2),
                at: start + .milliseconds(Int64(seconds * 1000))
            )
        }
        let limits = HubLimits().waitRepeat
        let first = told(100_000, 0)
        #expect(!told(99_000, 1).isNews(after: first, repeatMs: limits), "clients know")
        #expect(told(95_000, 5).isNews(after: first, repeatMs: limits), "a twentieth of it has passed")
        #expect(told(80_000, 1).isNews(after: first, repeatMs: limits), "it goes faster")
        #expect(told(120_000, 1).isNews(after: first, repeatMs: limits), "it goes slower")
        #expect(told(99_000, 1, ahead: 2).isNews(after: first, repeatMs: limits), "one left the line")
        #expect(!told(0, 30).isNews(after: told(0, 0), repeatMs: limits), "nothing to add")
        let stopped = ToldPlace(place: .inLine(ahead: 3), outlook: .unknown(.noWorker), at: start + .seconds(1))
        #expect(stopped.isNews(after: first, repeatMs: limits) && first.isNews(after: stopped, repeatMs: limits))
        #expect(!stopped.isNews(after: stopped, repeatMs: limits))
    }
}
