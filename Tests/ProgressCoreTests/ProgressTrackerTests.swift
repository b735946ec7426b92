import ProgressCore
import Testing

@Suite struct ProgressTrackerTests {
    /// Plays stages one after the other with an even tick, and gives the states along the way, each with the true share of time.
    private static func play(
        _ tracker: TrackedJob,
        _ stages: [(name: String?, ms: Int, steps: Int?)],
        everyMs: Int = 100
    ) -> [(state: ProgressState, truth: Double)] {
        let total = stages.reduce(0) { $0 + $1.ms }
        var seen: [(state: ProgressState, truth: Double)] = []
        var start = 0
        for stage in stages {
            if let name = stage.name { tracker.apply(.init(stage: name), atMs: start) }
            var told = 0
            for now in stride(from: start, to: start + stage.ms, by: everyMs) {
                if let steps = stage.steps, (now - start) * steps / stage.ms > told {
                    told = (now - start) * steps / stage.ms
                    tracker.apply(.init(step: told, steps: steps), atMs: now)
                }
                seen.append((tracker.state(atMs: now), Double(now) / Double(total)))
            }
            start += stage.ms
        }
        return seen
    }

    private static func worst(_ seen: [(state: ProgressState, truth: Double)]) -> Double {
        seen.map { abs($0.state.percent / 100 - $0.truth) }.max() ?? 0
    }

    @Test func aJobAsExpectedIsABarThatIsLinearInTime() {
        let tracker = TrackedJob(pipeline: Samples.model3D)
        let seen = Self.play(
            tracker,
            Samples.model3D.stages.map { ($0.name, $0.expectedMs ?? 0, $0.name == "shape_generation" ? 50 : nil) }
        )
        #expect(Self.worst(seen) < 0.06)
        #expect(seen.map(\.state.percent) == seen.map(\.state.percent).sorted())
        #expect(seen.map(\.state.phase.rank) == seen.map(\.state.phase.rank).sorted())
    }

    @Test func whatIsShownIsTheStageAndItsSteps() {
        let tracker = TrackedJob(pipeline: Samples.model3D)
        #expect(tracker.state(atMs: 0).phase == .analyzing)
        #expect(tracker.state(atMs: 0).percent == 0)
        #expect(tracker.apply(.init(stage: "image_loading"), atMs: 0))
        #expect(tracker.apply(.init(stage: "shape_generation", step: 0, steps: 50), atMs: 1000))
        #expect(!tracker.apply(.init(stage: "shape_generation", step: 25, steps: 50), atMs: 31_000))
        let state = tracker.state(atMs: 31_000)
        #expect(state.phase == .generating)
        #expect(state.stage == "shape_generation")
        #expect(state.stagePercent == 50)
        #expect(state.step == 25)
        #expect(state.steps == 50)
        #expect(state.phasePercent > 30 && state.phasePercent < 50)
    }

    @Test func skippedStagesAreOver() {
        let tracker = TrackedJob(pipeline: Samples.model3D)
        let before = tracker.state(atMs: 100)
        tracker.apply(.init(stage: "texture_synthesis"), atMs: 100)
        let after = tracker.state(atMs: 100)
        #expect((after.etaMs ?? 0) * 2 < before.etaMs ?? 0)
        #expect(after.phase == .generating)
    }

    @Test func goingBackHoldsBarAndPhase() {
        let tracker = TrackedJob(pipeline: Samples.model3D)
        tracker.apply(.init(stage: "mesh_export"), atMs: 1000)
        let before = tracker.state(atMs: 2000)
        tracker.apply(.init(stage: "image_loading", percent: 10), atMs: 2000)
        let after = tracker.state(atMs: 2000)
        #expect(after.percent == before.percent)
        #expect(after.phase == .postProcessing)
        #expect(after.phasePercent >= before.phasePercent)
        #expect(after.stage == "image_loading")
    }

    @Test func aRestartedStageHoldsTheBarAndCostsTime() {
        let tracker = TrackedJob(pipeline: Samples.model3D)
        tracker.apply(.init(stage: "shape_generation"), atMs: 0)
        for step in 1...40 { tracker.apply(.init(step: step, steps: 50), atMs: step * 1000) }
        let before = tracker.state(atMs: 40_000)
        tracker.apply(.init(step: 1), atMs: 40_000)
        let after = tracker.state(atMs: 40_000)
        #expect(after.percent == before.percent)
        #expect(after.stagePercent == 80)
        #expect(after.step == 1)
        var later = after
        for now in stride(from: 40_250, through: 45_000, by: 250) { later = tracker.state(atMs: now) }
        #expect((later.etaMs ?? 0) > (before.etaMs ?? 0) * 3 / 2)
    }

    @Test func itemsDivideAStage() {
        let tracker = TrackedJob(pipeline: Samples.untimed)
        tracker.apply(.init(stage: "sample", step: 10, steps: 20, item: 2, items: 4), atMs: 0)
        let state = tracker.state(atMs: 0)
        #expect(state.stagePercent == 37.5)
        #expect(state.item == 2)
        #expect(state.items == 4)
        tracker.apply(.init(item: 3), atMs: 0)
        #expect(tracker.state(atMs: 0).stagePercent == 50)
        #expect(tracker.state(atMs: 0).step == nil)
    }

    @Test func itemsThatGoThroughAllStagesInTurn() {
        let tracker = TrackedJob(pipeline: Samples.untimed)
        var seen: [ProgressState] = []
        var now = 0
        for item in 1...4 {
            for stage in ["sample", "upscale"] {
                for step in 0...10 {
                    tracker.apply(.init(stage: stage, step: step, steps: 10, item: item, items: 4), atMs: now)
                    seen.append(tracker.state(atMs: now))
                    now += 100
                }
            }
        }
        #expect(seen.map(\.percent) == seen.map(\.percent).sorted())
        let half = seen[seen.count / 2].percent
        #expect(half > 25 && half < 65, "\(half)")
        #expect(seen.last.map { $0.percent > 55 } ?? false)
    }

    @Test func itemsOfOneStageEndWithIt() {
        let tracker = TrackedJob(pipeline: Samples.untimed)
        for item in 1...4 { tracker.apply(.init(stage: "sample", item: item, items: 4), atMs: item * 1000) }
        tracker.apply(.init(stage: "upscale", step: 1, steps: 10), atMs: 5000)
        #expect(tracker.state(atMs: 5000).item == nil)
    }

    @Test func anUnlistedStageIsShownAndEndsNoOther() {
        let tracker = TrackedJob(pipeline: Samples.model3D)
        tracker.apply(.init(stage: "shape_generation"), atMs: 0)
        for step in 1...25 { tracker.apply(.init(step: step, steps: 50), atMs: step * 1000) }
        #expect(tracker.apply(.init(stage: "löading weights", step: 3, steps: 4), atMs: 25_000))
        let state = tracker.state(atMs: 25_000)
        #expect(state.stage == "l__ading weights")
        #expect(state.stagePercent == 75)
        #expect(state.phase == .generating)
        #expect((state.etaMs ?? 0) > 30_000, "half of the long stage is still to come")
    }

    @Test func aPlainLoopFillsTheWholeBarOfAGenericJob() {
        let tracker = TrackedJob(pipeline: Samples.generic)
        #expect(tracker.state(atMs: 0).phase == .generating)
        #expect(tracker.state(atMs: 0).isEstimating)
        let seen = Self.play(tracker, [(nil, 50_000, 50)])
        #expect(seen.allSatisfy { $0.state.stage == nil })
        let half = seen[seen.count / 2].state
        #expect(half.percent > 44 && half.percent < 54, "\(half.percent)")
        #expect(half.phasePercent == half.percent)
        #expect(!half.isEstimating)
        #expect(seen.last.map { $0.state.percent > 96 } ?? false)
        tracker.apply(.init(percent: 100), atMs: 50_000)
        #expect(tracker.state(atMs: 5_000_000).percent <= 99.9)
    }

    @Test func theFirstJobWithOneNamedStageEndsNearItsEnd() {
        let seen = Self.play(TrackedJob(pipeline: Samples.generic), [("render", 40_000, 40)])
        #expect(seen.last.map { $0.state.percent > 85 } ?? false, "\(String(describing: seen.last?.state.percent))")
    }

    @Test func theSecondRunOfAnUnknownScriptIsKnown() {
        var statistics = LearnedStatistics()
        let stages: [(name: String?, ms: Int, steps: Int?)] = [
            ("load", 6000, nil), ("draw", 20_000, 30), ("polish", 9000, nil), ("save", 1000, nil),
        ]
        let first = TrackedJob(pipeline: Samples.generic)
        let firstSeen = Self.play(first, stages)
        statistics.learn(first.finish(atMs: 36_000))
        #expect(statistics.routes.map(\.route.names) == [["load", "draw", "polish", "save"]])
        let second = Self.play(TrackedJob(pipeline: Samples.generic, statistics: statistics), stages)
        #expect(Self.worst(second) < 0.05, "first \(Self.worst(firstSeen)), second \(Self.worst(second))")
    }

    @Test func aJobGoesTheWayThatFitsItsStages() {
        var statistics = LearnedStatistics()
        let short: [(name: String?, ms: Int, steps: Int?)] = [("look", 1000, nil), ("answer", 2000, nil)]
        let long: [(name: String?, ms: Int, steps: Int?)] = [("look", 1000, nil), ("think", 30_000, nil), ("answer", 2000, nil)]
        for stages in [short, long, long, short, long] {
            let job = TrackedJob(pipeline: Samples.generic, statistics: statistics)
            _ = Self.play(job, stages)
            statistics.learn(job.finish(atMs: stages.reduce(0) { $0 + $1.ms }))
        }
        let job = TrackedJob(pipeline: Samples.generic, statistics: statistics)
        job.apply(.init(stage: "look"), atMs: 0)
        let unknown = job.state(atMs: 900).etaMs ?? 0
        job.apply(.init(stage: "answer"), atMs: 1000)
        let known = job.state(atMs: 1000).etaMs ?? 0
        #expect(unknown > 15_000, "most jobs think")
        #expect(known < 6000, "this one does not")
    }

    @Test func aPlanIsTheStagesOfAGenericJob() {
        let plan = [
            PlannedStage(name: "a", units: 10, declaredMs: 1000), PlannedStage(name: "b", units: 30, declaredMs: 3000),
            PlannedStage(name: "b"),
        ]
        let tracker = TrackedJob(pipeline: Samples.generic, plan: plan)
        let seen = Self.play(tracker, [("a", 1000, 10), ("b", 3000, 30)], everyMs: 20)
        #expect(Self.worst(seen) < 0.05)
    }

    @Test func aPlanThatComesLateHoldsTheBar() {
        let tracker = TrackedJob(pipeline: Samples.generic)
        _ = Self.play(tracker, [("a", 8000, 100)])
        let before = tracker.state(atMs: 8000)
        tracker.adopt([PlannedStage(name: "a"), PlannedStage(name: "b", declaredMs: 30_000)])
        #expect(tracker.state(atMs: 8000).percent == before.percent)
        #expect((tracker.state(atMs: 9000).etaMs ?? 0) > 10_000)
    }

    /// A job that finds out in its first stage how much there is to do.
    @Test func aLaterPlanReplacesWhatHasNotRun() {
        let plan = [
            PlannedStage(name: "look", declaredMs: 2000), PlannedStage(name: "draw", declaredMs: 10_000), PlannedStage(name: "old"),
        ]
        let tracker = TrackedJob(pipeline: Samples.generic, plan: plan)
        tracker.apply(.init(stage: "look"), atMs: 0)
        _ = tracker.state(atMs: 0)
        tracker.apply(.init(stage: "draw"), atMs: 2000)
        let before = tracker.state(atMs: 4000)
        tracker.adopt([PlannedStage(name: "draw", declaredMs: 40_000), PlannedStage(name: "save", declaredMs: 4000)])
        let after = tracker.state(atMs: 4000)
        #expect(after.percent == before.percent && after.stage == "draw")
        #expect((after.etaMs ?? 0) > 25_000 && (before.etaMs ?? 0) < 25_000, "\(before) \(after)")
        tracker.apply(.init(stage: "save"), atMs: 42_000)
        let end = tracker.state(atMs: 42_000)
        #expect((500...12_000).contains(end.etaMs ?? 0), "\(end)")
        // All three taught; the stage that the later plan left out did not.
        var statistics = LearnedStatistics()
        statistics.learn(tracker.finish(atMs: 46_000))
        let fields = statistics.fieldTexts.map(\.name)
        for name in ["look", "draw", "save"] { #expect(fields.contains("s|\(name)|-|0"), "\(name)") }
        #expect(!fields.contains("s|old|-|0") && statistics.routes.isEmpty)
    }

    @Test func aPlanDropsTheStagesThatWillNotRun() {
        let plan = [PlannedStage(name: "sample", declaredMs: 4000), PlannedStage(name: "save", declaredMs: 1000)]
        let tracker = TrackedJob(pipeline: Samples.untimed, plan: plan)
        let seen = Self.play(tracker, [("sample", 4000, 40), ("save", 1000, nil)], everyMs: 50)
        #expect(Self.worst(seen) < 0.1, "\(Self.worst(seen))")
    }

    @Test func durationsAreKeptPerStage() {
        let tracker = TrackedJob(pipeline: Samples.model3D, startedAtMs: 1000)
        tracker.apply(.init(stage: "image_loading"), atMs: 1000)
        tracker.apply(.init(stage: "shape_generation"), atMs: 1500)
        tracker.apply(.init(stage: "image_loading"), atMs: 2500)
        tracker.apply(.init(stage: "mesh_export"), atMs: 2600)
        #expect(
            tracker.stageDurations(atMs: 3000) == [
                .init(stage: "image_loading", ms: 600), .init(stage: "shape_generation", ms: 1000), .init(stage: "mesh_export", ms: 400),
            ]
        )
    }

    @Test func textIsCutAndMadeSafe() throws {
        let tracker = TrackedJob(pipeline: Samples.generic, startedAtMs: 0)
        tracker.apply(
            .init(stage: String(repeating: "ä", count: 100), message: "a\nb\u{1b}[31m" + String(repeating: "é", count: 600)),
            atMs: 0
        )
        let state = tracker.state(atMs: 0)
        #expect(state.stage?.utf8.count == 64)
        let message = try #require(state.message)
        #expect(message.utf8.count <= 512)
        #expect(message.hasPrefix("a b [31mé"))
    }

    @Test func aSilentJobStalls() {
        let tracker = TrackedJob(pipeline: Samples.generic)
        for step in 1...10 { tracker.apply(.init(step: step, steps: 100), atMs: step * 1000) }
        #expect(!tracker.state(atMs: 10_500).isStalled)
        let late = tracker.state(atMs: 60_000)
        #expect(late.isStalled)
        #expect((late.etaMs ?? 0) > 70_000)
    }

    @Test func speedIsTold() {
        let pipeline = Pipeline(name: "p", stages: [Pipeline.Stage(name: "a", phase: .generating, weight: 1, expectedMs: 10_000)])
        let seen = Self.play(TrackedJob(pipeline: pipeline), [("a", 10_000, 1000)], everyMs: 250)
        let speeds = seen.compactMap(\.state.percentPerSecond)
        #expect(speeds.count == seen.count && speeds.allSatisfy { $0 > 0 })
        #expect(speeds.dropFirst(4).allSatisfy { (6...14).contains($0) }, "\(speeds)")
    }
}
