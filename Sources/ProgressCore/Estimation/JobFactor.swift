import Glibc

/// The logarithm by which all stages of this job take longer than predicted: a busy machine, a slow one, an odd input.
///
/// Normal around 0, narrow for most jobs and wide for a few; each stage that ended is evidence, weighted by its length and
/// its own spread.
struct JobFactor {
    /// Variance for an ordinary job.
    let variance: Double
    private var sum = 0.0
    private(set) var precision = 0.0

    init(variance: Double) { self.variance = variance }

    /// The part of a stage's variance that is its own.
    ///
    /// - Parameter loading: how much of the factor the stage feels.
    func own(_ variance: Double, _ loading: Double) -> Double {
        max(variance - loading * loading * self.variance, Tuning.leastOwnShare * variance)
    }

    mutating func observe(_ residual: Double, loading: Double, weight: Double) {
        sum += weight * loading * min(max(residual, -Tuning.jobFactorClip), Tuning.jobFactorClip)
        precision += weight * loading * loading
    }

    /// Mean and variance by what was seen so far.
    var estimate: (mean: Double, variance: Double) {
        let odd = Tuning.oddJobVariance
        let precise = precision + 1 / variance
        let loose = precision + 1 / odd
        let ordinary = log(1 - Tuning.oddJobShare) - 0.5 * log1p(variance * precision) + 0.5 * sum * sum / precise
        let unusual = log(Tuning.oddJobShare) - 0.5 * log1p(odd * precision) + 0.5 * sum * sum / loose
        let share = 1 / (1 + exp(ordinary - unusual))
        let means = (sum / precise, sum / loose)
        let mean = (1 - share) * means.0 + share * means.1
        let between = (1 - share) * (means.0 - mean) * (means.0 - mean) + share * (means.1 - mean) * (means.1 - mean)
        return (mean, (1 - share) / precise + share / loose + between)
    }
}
