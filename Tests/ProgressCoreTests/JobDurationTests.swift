import TestSupport
import Testing

@testable import ProgressCore

@Suite struct JobDurationTests {
    private let pipeline = Pipeline(
        name: "p",
        stages: [
            Pipeline.Stage(name: "load", phase: .analyzing, weight: 0.25, expectedMs: 2000),
            Pipeline.Stage(name: "make", phase: .generating, weight: 0.75, expectedMs: 6000),
        ]
    )

    /// Statistics after `jobs` jobs of which every stage took `seconds`.
    private func learned(_ seconds: Double, jobs: Int, jobClass: String) -> LearnedStatistics {
        var statistics = LearnedStatistics()
        for _ in 0..<jobs {
            var tracker = ProgressTracker(
                pipeline: pipeline,
                statistics: statistics,
                hints: JobHints(worker: "w", jobClass: jobClass),
                startedAtMs: 0
            )
            tracker.apply(ProgressUpdate(stage: "load"), atMs: 0)
            tracker.apply(ProgressUpdate(stage: "make"), atMs: Int(seconds * 1000))
            statistics.learn(tracker.finish(atMs: Int(seconds * 2000)))
        }
        return statistics
    }

    @Test func aJobThatNobodyRanTakesWhatItsAuthorSaid() {
        let duration = QueueForecast.Waiting(pipeline: pipeline)
        #expect(duration.durationMs > 4000 && duration.durationMs < 12_000, "\(duration)")
        #expect(duration.variance > 0.1)
        let nameless = QueueForecast.Waiting(pipeline: Pipeline(name: "q", stages: []))
        #expect(nameless.variance > Tuning.showableSpread * Tuning.showableSpread)
    }

    @Test func classesAreToldApart() {
        var statistics = learned(10, jobs: 12, jobClass: "small")
        statistics.merge(learned(40, jobs: 12, jobClass: "large"))
        let small = QueueForecast.Waiting(pipeline: pipeline, statistics: statistics, hints: JobHints(jobClass: "small"))
        let large = QueueForecast.Waiting(pipeline: pipeline, statistics: statistics, hints: JobHints(jobClass: "large"))
        #expect(abs(small.durationMs - 20_000) < 4000, "\(small)")
        #expect(abs(large.durationMs - 80_000) < 16_000, "\(large)")
    }

    @Test func whatWasToldAgesAndNeverEndsBeforeItsTime() {
        for seed in 0..<5000 {
            var random = SeededGenerator(seed)
            let eta = Double.random(in: 10...600_000, using: &random)
            let width = Double.random(in: 0.02...1.5, using: &random)
            var last = Double.infinity
            for share in [0.0, 0.25, 0.5, 0.9, 1, 1.5, 4, 20] {
                let busy = QueueForecast.Busy(
                    etaMs: eta,
                    lowMs: eta * (1 - min(width, 0.9)),
                    highMs: eta * (1 + width),
                    ageMs: eta * share
                )
                #expect(busy.remainingMs > 0 && busy.remainingMs.isFinite && busy.variance >= 0 && busy.variance <= 9, "seed \(seed)")
                // What is wide may rise while it waits.
                if share <= 0.5, width < 0.4 {
                    #expect(busy.remainingMs <= last + 1e-6, "seed \(seed)")
                    last = busy.remainingMs
                }
            }
        }
    }

    @Test func hostileNumbersGiveOrdinarySlots() {
        let wild = [Double.nan, .infinity, -.infinity, -1, 0, 1e300, 5000]
        for seed in 0..<5000 {
            var random = SeededGenerator(seed)
            let busy = QueueForecast.Busy(
                etaMs: random.pick(wild),
                lowMs: random.pick(wild),
                highMs: random.pick(wild),
                ageMs: random.pick(wild),
                slowness: random.pick(wild)
            )
            #expect(busy.remainingMs.isFinite && busy.remainingMs >= 0 && busy.variance.isFinite, "seed \(seed)")
            let waits = QueueForecast.waits(workers: [busy], line: [.init(durationMs: random.pick(wild), variance: random.pick(wild))])
            #expect(waits.allSatisfy { $0.waitMs.isFinite && $0.lowMs <= $0.highMs }, "seed \(seed)")
        }
    }

    @Test func calibrationSurvivesItsText() {
        for seed in 0..<1000 {
            var random = SeededGenerator(seed)
            var calibration = WaitCalibration()
            for _ in 0..<20 {
                let waits = QueueForecast.waits(
                    workers: [.init(remainingMs: 10_000, variance: 0.04)],
                    line: [.init(durationMs: 1000)],
                    calibration: calibration
                )
                calibration.learn(waits[0], actualMs: Double.random(in: 1...40_000, using: &random))
            }
            #expect(WaitCalibration(text: calibration.text) == calibration, "seed \(seed)")
        }
        for text in ["", "1", "1 a b", "2 -1 1", "1 nan 1", "1 -1 inf", "1 1 -1", "1 -1 1 1"] {
            #expect(WaitCalibration(text: text) == nil, "\(text)")
        }
    }

    @Test func anOutlookIsANumberOnlyWhileItIsOfUse() {
        let sure = QueueForecast.Wait(waitMs: 5000, lowMs: 4000, highMs: 6000, sigma: 0.2)
        #expect(WaitOutlook(sure) == .wait(ms: 5000, lowMs: 4000, highMs: 6000))
        let vague = QueueForecast.Wait(waitMs: 5000, lowMs: 400, highMs: 60_000, sigma: 1.2)
        #expect(WaitOutlook(vague) == .unknown(.learning))
        let broken = QueueForecast.Wait(waitMs: .nan, lowMs: -1, highMs: .infinity, sigma: 0)
        #expect(WaitOutlook(broken) == .wait(ms: 0, lowMs: 0, highMs: 0))
    }
}
