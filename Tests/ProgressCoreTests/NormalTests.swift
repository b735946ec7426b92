import Testing

@testable import ProgressCore

struct NormalTests {
    @Test(arguments: [
        (0.0, 0.5), (1.0, 0.841_344_746_068_542_9), (-1.281_551_565_544_600_4, 0.1), (3.0, 0.998_650_101_968_369_9),
        (-6.0, 9.865_876_450_376_98e-10),
    ])
    func cumulativeAndQuantileAreThoseOfTheTables(x: Double, p: Double) {
        #expect(abs(Normal.cumulative(x) - p) <= 1e-14)
        #expect(abs(Normal.survival(x) - (1 - p)) <= 1e-14)
        #expect(abs(Normal.quantile(p) - x) <= 1e-9 * max(1, abs(x)))
    }

    @Test func theQuantileTurnsTheCumulativeAround() {
        for index in 1..<4000 {
            let p = Double(index) / 4000
            #expect(abs(Normal.cumulative(Normal.quantile(p)) - p) < 1e-14)
        }
        for exponent in 1...300 {
            var p = 1.0
            for _ in 0..<exponent { p /= 10 }
            let x = Normal.quantile(p)
            #expect(x.isFinite && abs(Normal.cumulative(x) / p - 1) < 1e-9, "1e-\(exponent)")
        }
        #expect(Normal.quantile(0) == -.infinity && Normal.quantile(1) == .infinity && Normal.quantile(-1).isNaN)
    }

    @Test func whatIsOverdueTakesEverLonger() {
        let duration = LogNormal(mu: 1, variance: 0.09)
        var last = duration.remaining(after: 0)
        #expect(abs(last.seconds - duration.mean) < 1e-9)
        for elapsed in stride(from: 5.0, to: 100_000, by: 97) {
            let rest = duration.remaining(after: elapsed)
            #expect(rest.seconds > 0 && rest.seconds.isFinite && rest.variance > 0 && rest.variance.isFinite)
            if elapsed > 100 { #expect(rest.seconds >= last.seconds) }
            last = rest
        }
    }
}
