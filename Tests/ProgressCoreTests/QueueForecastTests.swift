import ProgressCore
import TestSupport
import Testing

@Suite struct QueueForecastTests {
    @Test func withoutAWorkerThereIsNoForecast() {
        #expect(QueueForecast.waits(workers: [], line: [.init(durationMs: 1000)]).isEmpty)
    }

    @Test func theFirstFreeWorkerTakesTheNextJob() {
        let waits = QueueForecast.waits(
            workers: [.init(remainingMs: 5000), .init(remainingMs: 1000, slowness: 2)],
            line: [1000, 1000, 1000, 1000].map { QueueForecast.Waiting(durationMs: $0, variance: 0) }
        )
        // The slow one is free at 1, 3 and 5 s, the other at 5 and 6 s.
        #expect(waits.map { Int($0.waitMs) } == [1000, 3000, 5000, 5000])
        #expect(waits.allSatisfy { $0.lowMs <= $0.waitMs && $0.waitMs <= $0.highMs })
    }

    @Test func hostileNumbersGiveOrdinaryWaits() {
        let wild = [Double.nan, .infinity, -.infinity, -1, 0, 1e300]
        for seed in 0..<500 {
            var random = SeededGenerator(seed)
            let workers = (0..<Int.random(in: 1...5, using: &random)).map { _ in
                QueueForecast.Busy(remainingMs: random.pick(wild), variance: random.pick(wild), slowness: random.pick(wild))
            }
            let line = (0..<1200).map { _ in QueueForecast.Waiting(durationMs: random.pick(wild), variance: random.pick(wild)) }
            let waits = QueueForecast.waits(workers: workers, line: line)
            #expect(waits.count == ProgressLimits.forecastPositions)
            #expect(waits.allSatisfy { $0.waitMs.isFinite && $0.lowMs <= $0.waitMs && $0.waitMs <= $0.highMs }, "seed \(seed)")
            #expect(zip(waits, waits.dropFirst()).allSatisfy { $0.waitMs <= $1.waitMs }, "seed \(seed)")
        }
    }

    /// The scenarios that the method was chosen by: what was learned on the way, first come first served.
    @Test(arguments: WaitSimulation.Scenario.all)
    func waitsAreForecastWell(scenario: WaitSimulation.Scenario) {
        var simulation = WaitSimulation(scenario, seed: 3)
        let result = simulation.run(jobs: 900)
        #expect(result.medianError < 0.1, "\(result)")
        #expect(abs(result.bias) < 0.08, "\(result)")
        #expect(result.coverage > 0.65 && result.coverage < 0.92, "\(result)")
    }

    @Test func aSimulationCanBeHadAgain() {
        var (one, two) = (WaitSimulation(WaitSimulation.Scenario.all[2], seed: 5), WaitSimulation(WaitSimulation.Scenario.all[2], seed: 5))
        #expect(one.run(jobs: 300) == two.run(jobs: 300))
    }
}
