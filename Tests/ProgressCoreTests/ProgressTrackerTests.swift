import ProgressCore
import Testing

@Suite struct ProgressTrackerTests {
    @Test func stagesAddUpByTheirWeights() {
        let tracker = TrackedJob(pipeline: Samples.model3D, startedAtMs: 0)
        #expect(tracker.state(atMs: 0).phase == .analyzing)
        #expect(tracker.state(atMs: 0).percent == 0)
        #expect(tracker.apply(.init(stage: "image_loading"), atMs: 0))
        #expect(tracker.apply(.init(stage: "image_preprocessing"), atMs: 0))
        #expect(tracker.state(atMs: 0).percent == 5)
        #expect(tracker.state(atMs: 0).phasePercent == 50)
        #expect(tracker.apply(.init(stage: "shape_generation", step: 0, steps: 50), atMs: 0))
        #expect(!tracker.apply(.init(stage: "shape_generation", step: 25, steps: 50), atMs: 0))
        let state = tracker.state(atMs: 0)
        #expect(state.percent == 45)
        #expect(state.phase == .generating)
        #expect(state.phasePercent == 41.1)
        #expect(state.stage == "shape_generation")
        #expect(state.stagePercent == 50)
        #expect(state.step == 25)
        #expect(state.steps == 50)
    }

    @Test func skippedStagesCountAsDone() {
        let tracker = TrackedJob(pipeline: Samples.model3D, startedAtMs: 0)
        tracker.apply(.init(stage: "texture_synthesis"), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 80)
        #expect(tracker.state(atMs: 0).phase == .generating)
    }

    @Test func goingBackHoldsBarAndPhase() {
        let tracker = TrackedJob(pipeline: Samples.model3D, startedAtMs: 0)
        tracker.apply(.init(stage: "mesh_export"), atMs: 0)
        let before = tracker.state(atMs: 0)
        tracker.apply(.init(stage: "image_loading", percent: 10), atMs: 0)
        let after = tracker.state(atMs: 0)
        #expect(after.percent == before.percent)
        #expect(after.phase == .postProcessing)
        #expect(after.phasePercent >= before.phasePercent)
        #expect(after.stage == "image_loading")
    }

    @Test func aRestartedStageHolds() {
        let tracker = TrackedJob(pipeline: Samples.model3D, startedAtMs: 0)
        tracker.apply(.init(stage: "shape_generation", step: 40, steps: 50), atMs: 0)
        let before = tracker.state(atMs: 0)
        tracker.apply(.init(step: 1), atMs: 0)
        let after = tracker.state(atMs: 0)
        #expect(after.percent == before.percent)
        #expect(after.stagePercent == 80)
        #expect(after.step == 1)
    }

    @Test func itemsDivideAStage() {
        let tracker = TrackedJob(pipeline: Samples.untimed, startedAtMs: 0)
        tracker.apply(.init(stage: "sample", step: 10, steps: 20, item: 2, items: 4), atMs: 0)
        let state = tracker.state(atMs: 0)
        #expect(state.stagePercent == 37.5)
        #expect(state.percent == 18.7)
        #expect(state.item == 2)
        #expect(state.items == 4)
        tracker.apply(.init(item: 3), atMs: 0)
        #expect(tracker.state(atMs: 0).stagePercent == 50)
        #expect(tracker.state(atMs: 0).step == nil)
    }

    @Test func itemsThatGoThroughAllStagesInTurn() {
        let tracker = TrackedJob(pipeline: Samples.untimed, startedAtMs: 0)
        var seen: [Double] = []
        for item in 1...4 {
            for stage in ["sample", "upscale"] {
                for step in [0, 5, 10] {
                    tracker.apply(.init(stage: stage, step: step, steps: 10, item: item, items: 4), atMs: 0)
                    seen.append(tracker.state(atMs: 0).percent)
                }
            }
        }
        #expect(seen == seen.sorted())
        #expect(seen[5] == 18.7)
        #expect(seen.last == 75)
    }

    @Test func itemsOfOneStageEndWithIt() {
        let tracker = TrackedJob(pipeline: Samples.untimed, startedAtMs: 0)
        for item in 1...4 { tracker.apply(.init(stage: "sample", item: item, items: 4), atMs: 0) }
        tracker.apply(.init(stage: "upscale", step: 1, steps: 10), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 52.5)
        #expect(tracker.state(atMs: 0).item == nil)
    }

    @Test func anUnknownStageIsShownAndMovesNothing() {
        let tracker = TrackedJob(pipeline: Samples.model3D, startedAtMs: 0)
        tracker.apply(.init(stage: "shape_generation", step: 25, steps: 50), atMs: 0)
        #expect(tracker.apply(.init(stage: "löading weights", step: 3, steps: 4), atMs: 0))
        let state = tracker.state(atMs: 0)
        #expect(state.stage == "l__ading weights")
        #expect(state.stagePercent == 75)
        #expect(state.percent == 45)
        #expect(state.phase == .generating)
    }

    @Test func aPlainLoopFillsTheWholeBarOfAGenericJob() {
        let tracker = TrackedJob(pipeline: Samples.generic, startedAtMs: 0)
        #expect(tracker.state(atMs: 0).phase == .generating)
        #expect(tracker.state(atMs: 0).isEstimating)
        tracker.apply(.init(step: 21, steps: 50), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 42)
        #expect(tracker.state(atMs: 0).phasePercent == 42)
        #expect(tracker.state(atMs: 0).stage == nil)
        tracker.apply(.init(percent: 100), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 99.9)
    }

    @Test func aGenericJobLearnsItsStages() {
        let tracker = TrackedJob(pipeline: Samples.generic, startedAtMs: 0)
        tracker.apply(.init(stage: "load", step: 1, steps: 2), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 40)
        tracker.apply(.init(stage: "draw"), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 80)
        tracker.apply(.init(stage: "draw", percent: 50), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 88)
    }

    @Test func aPlanIsTheStagesOfAGenericJob() {
        let plan = [PlannedStage(name: "a", units: 10), PlannedStage(name: "b", units: 30), PlannedStage(name: "b")]
        let tracker = TrackedJob(pipeline: Samples.generic, plan: plan, startedAtMs: 0)
        tracker.apply(.init(stage: "b", step: 15, steps: 30), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 62.5)
        tracker.apply(.init(stage: "c"), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 62.5)
    }

    @Test func aPlanThatComesLateHoldsTheBar() {
        let tracker = TrackedJob(pipeline: Samples.generic, startedAtMs: 0)
        tracker.apply(.init(stage: "a", percent: 100), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 80)
        tracker.adopt([PlannedStage(name: "a"), PlannedStage(name: "b")])
        #expect(tracker.state(atMs: 0).percent == 80)
        tracker.apply(.init(stage: "b", percent: 80), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 90)
    }

    @Test func aPlanDropsTheStagesThatWillNotRun() {
        let plan = [PlannedStage(name: "sample", declaredMs: 4000), PlannedStage(name: "save", declaredMs: 1000)]
        let tracker = TrackedJob(pipeline: Samples.untimed, plan: plan, startedAtMs: 0)
        tracker.apply(.init(stage: "sample", percent: 50), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 33.3)
        tracker.apply(.init(stage: "save"), atMs: 0)
        #expect(tracker.state(atMs: 0).percent == 66.6)
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

    @Test func theBarMovesBetweenTicksButNotPastTheNextOne() {
        let tracker = TrackedJob(pipeline: Samples.generic, startedAtMs: 0)
        for step in 1...10 { tracker.apply(.init(step: step, steps: 100), atMs: step * 1000) }
        #expect(tracker.state(atMs: 10_000).percent == 10)
        let half = tracker.state(atMs: 10_500).percent
        #expect(half > 10.3 && half < 10.7)
        #expect(tracker.state(atMs: 60_000).percent == 11)
        #expect(tracker.state(atMs: 60_000).percentPerSecond == 0)
        #expect(tracker.state(atMs: 60_000).isStalled)
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

    @Test func speedIsToldWhenTicksComeFasterThanReports() {
        let pipeline = Pipeline(name: "p", stages: [Pipeline.Stage(name: "a", phase: .generating, weight: 1, expectedMs: 10_000)])
        var tracker = ProgressTracker(pipeline: pipeline, startedAtMs: 0)
        var speeds: [Double] = []
        for step in 1...900 {
            tracker.apply(ProgressUpdate(stage: "a", step: step, steps: 1000), atMs: step * 10)
            if step % 25 == 0 { speeds.append(tracker.state(atMs: step * 10 + 1).percentPerSecond ?? 0) }
        }
        #expect(speeds.filter { $0 == 0 }.isEmpty, "\(speeds)")
        #expect(speeds.suffix(20).allSatisfy { (7...13).contains($0) }, "\(speeds)")
    }
}
