import TestSupport
import Testing

@testable import ProgressCore

@Suite struct JobHintsTests {
    /// Ten jobs of each of two classes, of which one takes five times as long.
    private static let statistics: LearnedStatistics = {
        var statistics = LearnedStatistics()
        for job in 0..<20 {
            let isBig = job % 2 == 0
            var tracker = ProgressTracker(
                pipeline: Pipeline(name: "p", stages: []),
                plan: [PlannedStage(name: "a"), PlannedStage(name: "b")],
                statistics: statistics,
                hints: JobHints(worker: "w", jobClass: isBig ? "big" : "small"),
                startedAtMs: 0
            )
            let length = isBig ? 50_000 : 10_000
            tracker.apply(ProgressUpdate(stage: "a"), atMs: 0)
            tracker.apply(ProgressUpdate(stage: "b"), atMs: length)
            statistics.learn(tracker.finish(atMs: 2 * length))
        }
        return statistics
    }()

    private func tracker(_ jobClass: String) -> ProgressTracker {
        ProgressTracker(
            pipeline: Pipeline(name: "p", stages: []),
            plan: [PlannedStage(name: "a"), PlannedStage(name: "b")],
            statistics: Self.statistics,
            hints: JobHints(worker: "w", jobClass: jobClass),
            startedAtMs: 0
        )
    }

    @Test func whatAJobSaysOfItselfIsAsGoodAsWhatItsSubmitterSaid() {
        for (wrong, right) in [("small", "big"), ("big", "small")] {
            var said = tracker(wrong)
            said.adopt(jobClass: right, isCold: nil)
            var known = tracker(right)
            #expect(said.state(atMs: 0).etaMs == known.state(atMs: 0).etaMs)
            #expect(said.hints.jobClass == right && !said.hints.isCold)
        }
    }

    /// Whenever it is said: the bar does not fall, the stage stays, and the estimate is an ordinary number.
    @Test func hintsInTheMiddleMoveNothingBack() {
        for seed in 0..<2000 {
            var random = SeededGenerator(seed)
            var job = tracker(random.pick(["small", "big", "never seen"]))
            var now = 0
            var percent = 0.0
            for step in 0..<Int.random(in: 1...30, using: &random) {
                now += Int.random(in: 0...4000, using: &random)
                if random.chance(20) {
                    job.adopt(jobClass: random.pick([nil, "", "big", "small", "ü|*"]), isCold: random.pick([nil, true, false]))
                }
                if random.chance(60) {
                    job.apply(ProgressUpdate(stage: step < 12 ? "a" : "b", step: step % 12, steps: 12), atMs: now)
                }
                let state = job.state(atMs: now)
                job.published(state, atMs: now)
                #expect(state.percent >= percent && state.percent < 100, "seed \(seed)")
                #expect(state.etaMs.map { $0 >= 0 } ?? false, "seed \(seed)")
                percent = state.percent
            }
            let record = job.finish(atMs: now + 1)
            #expect(record.additions.allSatisfy { !$0.field.isEmpty }, "seed \(seed)")
        }
    }
}
