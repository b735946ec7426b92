import ProgressCore
import TestSupport
import Testing

@Suite struct LearnedStatisticsTests {
    /// A job of three stages, four times as long on the slow machine; the second scales with its steps.
    private static func lesson(_ random: inout SeededGenerator, after statistics: LearnedStatistics) -> LearningRecord {
        let isSlow = random.chance(50)
        let steps = random.pick([10, 20, 40])
        let tracker = TrackedJob(
            pipeline: Samples.generic,
            plan: [PlannedStage(name: "load"), PlannedStage(name: "draw", units: Double(steps)), PlannedStage(name: "save")],
            statistics: statistics,
            hints: JobHints(worker: "w\(Int.random(in: 0..<2, using: &random))", jobClass: isSlow ? "slow" : "fast")
        )
        let pace = (isSlow ? 4.0 : 1.0) * Double.random(in: 0.9...1.1, using: &random)
        var now = 0.0
        tracker.apply(.init(stage: "load"), atMs: 0)
        _ = tracker.state(atMs: 10)
        now += 2000 * pace
        tracker.apply(.init(stage: "draw"), atMs: Int(now))
        for step in 1...steps {
            now += 200 * pace
            tracker.apply(.init(step: step, steps: steps), atMs: Int(now))
            _ = tracker.state(atMs: Int(now))
        }
        tracker.apply(.init(stage: "save"), atMs: Int(now))
        now += 500
        return tracker.finish(atMs: Int(now))
    }

    private static func learned(_ seed: Int, jobs: Int) -> LearnedStatistics {
        var random = SeededGenerator(seed)
        var statistics = LearnedStatistics()
        for _ in 0..<jobs { statistics.learn(lesson(&random, after: statistics)) }
        return statistics
    }

    private static func forecast(_ statistics: LearnedStatistics, steps: Int, jobClass: String) -> Int {
        let tracker = TrackedJob(
            pipeline: Samples.generic,
            plan: [PlannedStage(name: "load"), PlannedStage(name: "draw", units: Double(steps)), PlannedStage(name: "save")],
            statistics: statistics,
            hints: JobHints(worker: "w0", jobClass: jobClass)
        )
        return tracker.state(atMs: 0).etaMs ?? 0
    }

    @Test func sizeAndMachineAreTold() {
        let statistics = Self.learned(1, jobs: 40)
        for (steps, jobClass, truth) in [(10, "fast", 4500), (40, "fast", 10_500), (20, "slow", 24_500), (80, "fast", 18_500)] {
            let ratio = Double(Self.forecast(statistics, steps: steps, jobClass: jobClass)) / Double(truth)
            #expect((0.75...1.3).contains(ratio), "\(steps) steps on \(jobClass): \(ratio)")
        }
    }

    @Test func textIsReadAsItWasWritten() throws {
        for seed in 0..<30 {
            let statistics = Self.learned(seed, jobs: seed)
            #expect(LearnedStatistics(fieldTexts: statistics.fieldTexts) == statistics)
            guard seed > 0 else { continue }
            let (pipeline, imported) = try LearnedStatistics.imported(statistics.exported(pipeline: "my pipe"))
            #expect(pipeline == "my pipe" && imported == statistics)
        }
    }

    @Test func theOrderOfJobsHardlyMatters() {
        var random = SeededGenerator(7)
        let base = Self.learned(3, jobs: 10)
        let lessons = (0..<8).map { _ in Self.lesson(&random, after: base) }
        var forward = base
        var backward = base
        for lesson in lessons { forward.learn(lesson) }
        for lesson in lessons.reversed() { backward.learn(lesson) }
        for steps in [10, 40] {
            let (a, b) = (Self.forecast(forward, steps: steps, jobClass: "fast"), Self.forecast(backward, steps: steps, jobClass: "fast"))
            #expect(abs(Double(a) / Double(b) - 1) < 0.1, "\(a) \(b)")
        }
    }

    @Test func twoDeploymentsAddUp() {
        let (one, other) = (Self.learned(1, jobs: 30), Self.learned(2, jobs: 30))
        var merged = one
        merged.merge(other)
        #expect(merged.jobs == 60)
        let (a, m, b) = (
            Self.forecast(one, steps: 20, jobClass: "fast"), Self.forecast(merged, steps: 20, jobClass: "fast"),
            Self.forecast(other, steps: 20, jobClass: "fast")
        )
        #expect(Double(m) >= 0.9 * Double(min(a, b)) && Double(m) <= 1.1 * Double(max(a, b)))
        var turned = other
        turned.merge(one)
        #expect(abs(Self.forecast(turned, steps: 20, jobClass: "fast") - m) <= m / 20)
        var alone = one
        alone.merge(LearnedStatistics())
        #expect(alone == one)
    }

    /// Whatever Redis or a file holds, a forecast is a number.
    @Test func damagedStatisticsBreakNothing() {
        let good = Self.learned(5, jobs: 20).fieldTexts
        for seed in 0..<600 {
            var random = SeededGenerator(seed)
            var texts = good
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let index = Int.random(in: texts.indices, using: &random)
                guard texts[index].name != "v" else { continue }
                var words = texts[index].text.split(separator: " ").map(String.init)
                guard !words.isEmpty else { continue }
                let word = Int.random(in: words.indices, using: &random)
                words[word] = random.pick(["nan", "inf", "-1e8", "1e8", "", "x", "0", "-0.5", "1e-300", "99999999999999999999"])
                texts[index].text = words.joined(separator: " ")
            }
            var statistics = LearnedStatistics(fieldTexts: texts)
            let tracker = TrackedJob(
                pipeline: Samples.generic,
                plan: [PlannedStage(name: "load"), PlannedStage(name: "draw", units: 20), PlannedStage(name: "save")],
                statistics: statistics,
                hints: JobHints(worker: "w0", jobClass: "fast")
            )
            var last = -1.0
            for now in stride(from: 0, to: 30_000, by: 1500) {
                if now == 3000 { tracker.apply(.init(stage: "load"), atMs: now) }
                if now == 6000 { tracker.apply(.init(stage: "draw"), atMs: now) }
                if now > 6000 { tracker.apply(.init(step: now / 3000, steps: 20), atMs: now) }
                let state = tracker.state(atMs: now)
                let eta = state.etaMs ?? -1
                #expect(state.percent >= last && state.percent < 100, "seed \(seed)")
                #expect(
                    eta >= 0 && eta <= ProgressLimits.durationMs && state.etaLowMs ?? 0 <= eta && eta <= state.etaHighMs ?? 0,
                    "seed \(seed)"
                )
                last = state.percent
            }
            statistics.learn(tracker.finish(atMs: 31_000))
            #expect(LearnedStatistics(fieldTexts: statistics.fieldTexts).jobs == statistics.jobs)
        }
    }

    @Test func garbageIsNoExport() {
        for text in ["", "hello", "headway-statistics 2 p\n", "headway-statistics 1 p\nabc", "headway-statistics 1 p\nv\t1\njobs\tx"] {
            #expect(throws: StatisticsError.self) { try LearnedStatistics.imported(text) }
        }
    }
}
