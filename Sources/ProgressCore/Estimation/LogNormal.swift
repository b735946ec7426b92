import Glibc

/// Mean (or median) and variance of a remaining time, in seconds.
struct Remaining {
    var seconds: Double
    var variance: Double
}

/// A duration whose logarithm is normal with mean `mu` and variance `variance`.
struct LogNormal {
    var mu: Double
    var variance: Double

    var mean: Double { exp(mu + variance / 2) }

    /// Variance of the duration itself.
    var spread: Double {
        let mean = mean
        return mean * mean * expm1(variance)
    }

    /// P(duration > elapsed).
    func survival(_ elapsed: Double) -> Double {
        elapsed > 0 ? Normal.survival((log(elapsed) - mu) / variance.squareRoot()) : 1
    }

    /// What is left when it has lasted for `elapsed` and has not ended.
    ///
    /// The median of the part beyond `elapsed`; for what should have ended long ago a share of the excess, so that the
    /// estimate grows with the waiting instead of saying "any moment now" for ever.
    func remaining(after elapsed: Double) -> Remaining {
        let sigma = variance.squareRoot()
        let z = elapsed > 0 ? (log(elapsed) - mu) / sigma : -.infinity
        if z < -3 { return Remaining(seconds: max(mean - elapsed, 0), variance: spread) }
        let overdue = Tuning.overdueShare * (elapsed - exp(mu + 2.5 * sigma))
        if z > 5 {
            let rest = elapsed * 0.4 * sigma
            return Remaining(seconds: max(rest, overdue), variance: rest * rest)
        }
        let survival = Normal.survival(z)
        let median = exp(mu + sigma * Normal.quantile(1 - 0.5 * survival)) - elapsed
        let upper = exp(mu + sigma * Normal.quantile(1 - 0.16 * survival)) - elapsed
        let deviation = max(upper - median, 0.02 * elapsed)
        return Remaining(seconds: max(median, overdue), variance: deviation * deviation)
    }
}
