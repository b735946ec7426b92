import Glibc
import TestSupport
import Testing

@testable import ProgressCore

@Suite struct RestSumTests {
    /// Of stages with two modes each, near and far apart, balanced and not: half of the mixture is below what is told.
    @Test func theMedianOfAMixtureIsInItsMiddle() {
        for seed in 0..<4000 {
            var random = SeededGenerator(seed)
            func rest(_ scale: Double) -> Remaining {
                let seconds = scale * exp(Double.random(in: -3...3, using: &random))
                return Remaining(seconds: seconds, variance: seconds * seconds * Double.random(in: 0.0005...1, using: &random))
            }
            let share = Double.random(in: 0.03...0.97, using: &random)
            let (certain, low, high) = (rest(1), rest(1), rest(random.pick([1, 10, 1000])))
            var sum = RestSum()
            sum.add(certain)
            sum.addEither(share, low, high)
            // So late that nothing is shortened any more.
            let told = log(sum.distribution(sharedVariance: 0, elapsed: 1e15).estimate)
            func below(_ part: Remaining) -> Double {
                let seconds = certain.seconds + part.seconds
                let variance = log1p((certain.variance + part.variance) / (seconds * seconds))
                let sigma = max(variance, Tuning.leastWidth * Tuning.leastWidth).squareRoot()
                return Normal.cumulative((told - log(seconds) + variance / 2) / sigma)
            }
            let probability = share * below(low) + (1 - share) * below(high)
            #expect(abs(probability - 0.5) < 1e-5, "seed \(seed): \(probability)")
        }
    }
}
