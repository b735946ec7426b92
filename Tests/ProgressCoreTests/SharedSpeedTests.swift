import Glibc
import TestSupport
import Testing

@testable import ProgressCore

/// What jobs and workers have in common, and what is made of an outcome that nobody can know.
struct SharedSpeedTests {
    private static let names = ["load", "draw", "save"]
    private static let usual = [20_000.0, 20_000.0, 20_000.0]

    /// One job of three stages without ticks, whose durations are the usual ones times `factors`.
    private static func play(_ factors: [Double], _ statistics: inout LearnedStatistics, worker: String = "w") {
        let job = tracked(statistics, worker: worker)
        var now = 0.0
        for (index, name) in names.enumerated() {
            job.apply(.init(stage: name), atMs: Int(now))
            _ = job.state(atMs: Int(now))
            now += usual[index] * factors[index]
        }
        statistics.learn(job.finish(atMs: Int(now)))
    }

    private static func tracked(_ statistics: LearnedStatistics, worker: String = "w") -> TrackedJob {
        TrackedJob(
            pipeline: Samples.generic,
            plan: names.map { PlannedStage(name: $0) },
            statistics: statistics,
            hints: JobHints(worker: worker)
        )
    }

    /// A factor with a spread of about `sigma`.
    private static func factor(_ sigma: Double, _ random: inout SeededGenerator) -> Double {
        exp(sigma * (0..<12).reduce(-6.0) { sum, _ in sum + Double.random(in: 0..<1, using: &random) })
    }

    private static func learned(_ seed: Int, jobs: Int = 60, _ factors: (inout SeededGenerator) -> [Double]) -> LearnedStatistics {
        var random = SeededGenerator(seed)
        var statistics = LearnedStatistics()
        for _ in 0..<jobs { play(factors(&random), &statistics) }
        return statistics
    }

    /// How much longer the last stage is expected to take after a first and a second that took so much longer than usual.
    private static func last(_ statistics: LearnedStatistics, after factors: [Double]) -> Double {
        func rest(_ factors: [Double]) -> Double {
            let job = tracked(statistics)
            var now = 0.0
            for (index, name) in names.enumerated() {
                job.apply(.init(stage: name), atMs: Int(now))
                guard index < 2 else { break }
                now += usual[index] * factors[index]
            }
            var estimate = job.state(atMs: Int(now)).etaMs ?? 0
            estimate = job.state(atMs: Int(now) + 1).etaMs ?? estimate
            return Double(estimate)
        }
        return rest(factors) / rest([1, 1])
    }

    @Test func stagesThatAreSlowTogetherForetellEachOther() {
        for seed in 0..<6 {
            let together = Self.learned(seed) { random in
                let job = Self.factor(0.4, &random)
                return [job, job * Self.factor(0.05, &random), job * Self.factor(0.05, &random)]
            }
            #expect(Self.last(together, after: [1.8, 1.8]) > 1.55, "seed \(seed)")
            let apart = Self.learned(seed) { random in Self.names.map { _ in Self.factor(0.4, &random) } }
            #expect(Self.last(apart, after: [1.8, 1.8]) < 1.4, "seed \(seed)")
        }
    }

    /// Loading from disk says nothing of the machine that draws; the next stage on that machine does.
    @Test func aStageOfItsOwnForetellsNothing() {
        for seed in 0..<6 {
            let statistics = Self.learned(seed) { random in
                let job = Self.factor(0.3, &random)
                return [Self.factor(0.3, &random), job * Self.factor(0.05, &random), job * Self.factor(0.05, &random)]
            }
            let (disk, machine) = (Self.last(statistics, after: [1.6, 1]), Self.last(statistics, after: [1, 1.6]))
            #expect(machine > 1.25, "seed \(seed): \(machine)")
            #expect(disk < 1.12 && disk < machine - 0.2, "seed \(seed): \(disk)")
        }
    }

    @Test func aChangeOfSpeedIsForgottenNeitherTooSlowlyNorByItsStages() {
        for seed in 0..<6 {
            var random = SeededGenerator(seed)
            var statistics = LearnedStatistics()
            var worst = 0.0
            for number in 0..<60 {
                let speed = number < 40 ? 1.0 : 0.4
                if number >= 50 {
                    let truth = 60_000 * speed
                    let told = Double(Self.tracked(statistics, worker: "w\(number % 2)").state(atMs: 0).etaMs ?? 0)
                    worst = max(worst, abs(log(told / truth)))
                }
                Self.play(Self.names.map { _ in speed * Self.factor(0.05, &random) }, &statistics, worker: "w\(number % 2)")
            }
            #expect(worst < 0.12, "seed \(seed): \(worst)")
        }
    }

    /// Statistics of before these sums were kept are good for a forecast.
    @Test func statisticsWithoutCommonSumsAreRead() {
        let statistics = Self.learned(1) { random in Self.names.map { _ in Self.factor(0.1, &random) } }
        #expect(statistics.fieldTexts.contains { $0.name == "g|draw" })
        let older = LearnedStatistics(fieldTexts: statistics.fieldTexts.filter { !$0.name.hasPrefix("g|") })
        #expect(older.jobs == statistics.jobs)
        let (now, then) = (Self.tracked(statistics).state(atMs: 0).etaMs ?? 0, Self.tracked(older).state(atMs: 0).etaMs ?? 0)
        #expect(abs(Double(then) / Double(now) - 1) < 0.1)
    }

    // MARK: What nobody can know

    /// The expected error as a share of the job's duration, over the outcomes of a stage that takes 4 s or 16 s.
    private static func loss(_ estimate: Double, share: Double, elapsed: Double) -> Double {
        share * abs(estimate - 4) / (elapsed + 4) + (1 - share) * abs(estimate - 16) / (elapsed + 16)
    }

    @Test func ofTwoOutcomesTheOneIsToldThatCostsLeast() {
        for share in [0.2, 0.35, 0.45, 0.55, 0.8] {
            for elapsed in [0.0, 4, 40] {
                var sum = RestSum()
                sum.addEither(share, Remaining(seconds: 4, variance: 0.01), Remaining(seconds: 16, variance: 0.1))
                let told = sum.distribution(sharedVariance: 0, elapsed: elapsed).estimate
                let best = min(Self.loss(4, share: share, elapsed: elapsed), Self.loss(16, share: share, elapsed: elapsed))
                #expect(Self.loss(told, share: share, elapsed: elapsed) < best * 1.1 + 0.01, "\(share) after \(elapsed): \(told)")
            }
        }
    }

    @Test func anUncertainRestIsToldShorterTheLessHasPassed() {
        var sum = RestSum()
        sum.add(Remaining(seconds: 10, variance: 16))
        let early = sum.distribution(sharedVariance: 0, elapsed: 0)
        let late = sum.distribution(sharedVariance: 0, elapsed: 90)
        let median = 10 / (1 + 0.16).squareRoot()
        #expect(early.estimate < late.estimate && late.estimate < median && early.estimate > 0.85 * median)
        #expect(early.barRest == late.barRest)
        // A guess that may be anything is not made much shorter.
        var guess = RestSum()
        guess.add(Remaining(seconds: 10, variance: 400))
        #expect(guess.distribution(sharedVariance: 0, elapsed: 0).estimate > 0.85 * 10 / 5.0.squareRoot())
    }

    // MARK: Ticks that are due, and the estimates that a job is judged by

    @Test func aTickThatIsDueIsStillToCome() {
        var statistics = LearnedStatistics()
        func job() -> TrackedJob {
            let job = TrackedJob(
                pipeline: Samples.generic,
                plan: [PlannedStage(name: "draw", units: 10), PlannedStage(name: "save")],
                statistics: statistics
            )
            job.apply(.init(stage: "draw"), atMs: 0)
            return job
        }
        for _ in 0..<20 {
            let one = job()
            for step in 1...10 { one.apply(.init(step: step, steps: 10), atMs: 1000 * step) }
            one.apply(.init(stage: "save"), atMs: 10_000)
            statistics.learn(one.finish(atMs: 10_050))
        }
        let late = job()
        for step in 1...9 { late.apply(.init(step: step, steps: 10), atMs: 1000 * step) }
        var last = 0
        for now in stride(from: 10_000, through: 16_000, by: 500) {
            let rest = late.state(atMs: now).etaMs ?? 0
            #expect(rest > 220, "after \(now) ms: \(rest)")
            if now > 12_000 { #expect(rest > last) }
            last = rest
        }
        #expect(last > 1500)
    }

    @Test func aJobIsJudgedAllOverItsEighths() {
        var tenths = [Int](repeating: 0, count: 10)
        for job in 0..<1000 { tenths[Int(10 * IntervalCalibration.samplePlace(job: job))] += 1 }
        #expect(tenths.allSatisfy { (95...105).contains($0) }, "\(tenths)")

        var statistics = LearnedStatistics()
        Self.play([1, 1, 1], &statistics)
        var estimator = LearnedEstimator(statistics: statistics, hints: JobHints(worker: "w"), startedAt: 0)
        estimator.list(Self.names.map { StageOutline(name: $0) })
        estimator.enter(0, at: 0)
        let place = IntervalCalibration.samplePlace(job: 1)
        for now in stride(from: 0.0, to: 15, by: 0.25) {
            let rest = estimator.estimate(at: now).remainingMs / 1000
            let isPast = IntervalCalibration.place(elapsed: now, rest: rest, in: 0) >= place
            #expect((estimator.samples[0] != nil) == isPast || now > 8, "at \(now)")
        }
        #expect(estimator.samples[0] != nil && estimator.samples[1] != nil && estimator.samples[7] == nil)
    }
}
