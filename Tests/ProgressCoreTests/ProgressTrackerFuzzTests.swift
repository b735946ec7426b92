import ProgressCore
import TestSupport
import Testing

/// Thousands of seeded sequences, most of them nonsense: the invariants of the tracker hold for all.
@Suite(.timeLimit(.minutes(5))) struct ProgressTrackerFuzzTests {
    private static let names = [
        "image_loading", "image_preprocessing", "shape_generation", "texture_synthesis", "mesh_export", "sample", "upscale", "save", "",
        "x",
        "ünknown", String(repeating: "long", count: 40), "a\u{0}b",
    ]
    private static let wildInts = [Int.min, -1, 0, 1, 2, 7, 50, 1000, 1_000_000_001, Int.max]
    private static let wildDoubles = [Double.nan, .infinity, -.infinity, -1, 0, 0.001, 33.3, 99.99, 100, 101, 1e308, -1e308]

    private static func update(_ random: inout SeededGenerator) -> ProgressUpdate {
        var update = ProgressUpdate()
        if random.chance(40) { update.stage = random.pick(names) }
        if random.chance(60) { update.step = random.chance(80) ? Int.random(in: 0...60, using: &random) : random.pick(wildInts) }
        if random.chance(50) { update.steps = random.chance(80) ? 50 : random.pick(wildInts) }
        if random.chance(20) { update.percent = random.chance(60) ? .random(in: 0...100, using: &random) : random.pick(wildDoubles) }
        if random.chance(20) { update.item = random.chance(80) ? Int.random(in: 1...4, using: &random) : random.pick(wildInts) }
        if random.chance(20) { update.items = random.chance(80) ? 4 : random.pick(wildInts) }
        if random.chance(10) { update.message = random.pick(names) }
        return update
    }

    private static func plan(_ random: inout SeededGenerator) -> [PlannedStage] {
        (0..<Int.random(in: 0...80, using: &random)).map { _ in
            PlannedStage(
                name: random.pick(names),
                units: random.chance(50) ? random.pick(wildDoubles) : nil,
                work: random.chance(50) ? random.pick(wildDoubles) : nil,
                declaredMs: random.chance(50) ? random.pick(wildInts) : nil
            )
        }
    }

    private static func check(_ state: ProgressState, after last: ProgressState?, seed: Int) {
        var isSound = (0.0...99.9).contains(state.percent) && (0.0...100).contains(state.phasePercent)
        isSound = isSound && !state.phase.isTerminal && state.phase != .queued
        isSound = isSound && (0...100).contains(state.stagePercent ?? 0)
        isSound = isSound && (state.percentPerSecond ?? 0).isFinite && (state.percentPerSecond ?? 0) >= 0
        isSound = isSound && (0...ProgressLimits.steps).contains(state.step ?? 0) && (1...ProgressLimits.steps).contains(state.steps ?? 1)
        isSound = isSound && (1...ProgressLimits.items).contains(state.item ?? 1) && (1...ProgressLimits.items).contains(state.items ?? 1)
        isSound = isSound && (state.stage?.utf8.count ?? 0) <= 64 && (state.message?.utf8.count ?? 0) <= 512
        for eta in [state.etaMs, state.etaLowMs, state.etaHighMs] {
            isSound = isSound && (0...ProgressLimits.durationMs).contains(eta ?? 0)
        }
        if let low = state.etaLowMs, let eta = state.etaMs, let high = state.etaHighMs { isSound = isSound && low <= eta && eta <= high }
        if let last {
            isSound = isSound && state.percent >= last.percent && state.phase.rank >= last.phase.rank
            if state.phase == last.phase { isSound = isSound && state.phasePercent >= last.phasePercent }
        }
        #expect(isSound, "seed \(seed): \(state) after \(String(describing: last))")
    }

    @Test func garbageNeverBreaksAnInvariant() {
        for seed in 0..<1500 {
            var random = SeededGenerator(seed)
            let pipeline = random.pick([Samples.model3D, Samples.untimed, Samples.generic])
            var now = random.chance(90) ? 1_767_225_600_000 : 0
            var tracker = ProgressTracker(
                pipeline: pipeline,
                plan: random.chance(30) ? Self.plan(&random) : [],
                items: random.chance(30) ? random.pick(Self.wildInts) : nil,
                startedAtMs: now
            )
            var last: ProgressState?
            for _ in 0..<60 {
                now += random.chance(90) ? Int.random(in: 0...3000, using: &random) : Int.random(in: -10_000...100_000_000, using: &random)
                if random.chance(3) { tracker.adopt(Self.plan(&random)) }
                tracker.apply(Self.update(&random), atMs: now)
                if random.chance(70) {
                    let state = tracker.state(atMs: now)
                    Self.check(state, after: last, seed: seed)
                    if random.chance(80) { tracker.published(state, atMs: now) }
                    last = state
                }
            }
            let durations = tracker.stageDurations(atMs: now)
            #expect(durations.count <= ProgressLimits.stages && durations.allSatisfy { $0.ms >= 0 }, "seed \(seed)")
        }
    }

    /// Well-behaved jobs with random true durations: the published bar never runs ahead of the next evidence by more than
    /// the tick it may anticipate, and the estimate gets close.
    @Test func honestJobsAreForecastWell() {
        var errorAtHalf: [Double] = []
        var covered = 0
        var judged = 0
        for seed in 0..<400 {
            var random = SeededGenerator(seed)
            var tracker = ProgressTracker(pipeline: Samples.model3D, startedAtMs: 0)
            let pace = Double.random(in: 0.6...1.8, using: &random)
            let durations = Samples.model3D.stages.map {
                Double($0.expectedMs ?? 0) * pace * Double.random(in: 0.8...1.25, using: &random)
            }
            let total = durations.reduce(0, +)
            var start = 0.0
            var last: ProgressState?
            for (stage, duration) in zip(Samples.model3D.stages, durations) {
                tracker.apply(.init(stage: stage.name), atMs: Int(start))
                for step in 0...50 {
                    let at = start + duration * Double(step) / 50
                    if stage.name.hasSuffix("generation") { tracker.apply(.init(step: step, steps: 50), atMs: Int(at)) }
                    let state = tracker.state(atMs: Int(at))
                    Self.check(state, after: last, seed: seed)
                    last = state
                    if stage.name == "shape_generation", step == 25, let eta = state.etaMs {
                        errorAtHalf.append(abs(Double(eta) - (total - at)) / (total - at))
                    }
                    if stage.name != "image_loading", let low = state.etaLowMs, let high = state.etaHighMs, !state.isEstimating {
                        judged += 1
                        covered += (Double(low)...Double(high)).contains(total - at) ? 1 : 0
                    }
                }
                start += duration
            }
        }
        let mean = errorAtHalf.reduce(0, +) / Double(errorAtHalf.count)
        #expect(errorAtHalf.count == 400)
        #expect(mean < 0.15, "mean error of the remaining time in the middle of the long stage: \(mean)")
        let coverage = Double(covered) / Double(judged)
        #expect(coverage > 0.7, "share of forecasts whose interval holds the truth: \(coverage)")
    }

    @Test func aMergedUpdateEndsWhereTheSeparateOnesEnd() {
        for seed in 0..<2000 {
            var random = SeededGenerator(seed)
            var one = ProgressTracker(pipeline: Samples.untimed, startedAtMs: 0)
            var other = ProgressTracker(pipeline: Samples.untimed, startedAtMs: 0)
            var merged = ProgressUpdate(stage: "sample")
            one.apply(merged, atMs: 0)
            for step in 1...5 {
                let update = ProgressUpdate(
                    stage: random.chance(50) ? "sample" : nil,
                    step: step,
                    steps: random.chance(50) ? 10 : nil,
                    message: random.chance(30) ? "m\(step)" : nil
                )
                one.apply(update, atMs: step)
                merged = merged.merged(with: update)
            }
            other.apply(merged, atMs: 5)
            let (a, b) = (one.state(atMs: 5), other.state(atMs: 5))
            #expect(a.step == b.step && a.steps == b.steps && a.message == b.message && a.stage == b.stage, "seed \(seed)")
            #expect(a.percent == b.percent, "seed \(seed)")
        }
    }
}
