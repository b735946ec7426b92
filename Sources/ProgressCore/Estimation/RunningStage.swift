import Glibc

/// One stage of a running job: its forecast, and what was seen of it.
struct RunningStage {
    private(set) var outline: StageOutline
    private(set) var forecast: StageForecast
    /// Median of ln seconds with the worker's factor.
    private(set) var mu: Double
    /// It is over, or will not run.
    var isDone = false
    /// Share of its ticks, and the size of the last one.
    var share = 0.0
    var tickSize = 0.0
    var ticks = 0
    /// Seconds in it up to its last tick, and up to when it was left unfinished; without stalls and failed tries.
    var tickTime = 0.0
    var spent = 0.0
    /// Clean duration, once it has ended; what the forecast is measured against.
    var duration: Double?
    /// Its ticks as shares of its duration, and the errors of the rate rule, when it ran in one go.
    var curve: [Double]?
    var rateErrors: [Double]?
    var wasLeft = false
    /// How much of what all stages share it feels, 1 for all of it.
    private(set) var loading = 1.0

    /// Duration by the forecast alone, for each mode, when the job factor is 0: what the sum over later stages is made of.
    private(set) var later: (low: Remaining, high: Remaining)

    /// What the sum over stages needs of one that has not begun, without the rest of it: a copy that costs nothing.
    struct Ahead {
        var probability: Double
        var modes: StageModes?
        var later: (low: Remaining, high: Remaining)
        var loading: Double
    }

    var ahead: Ahead { Ahead(probability: outline.probability, modes: forecast.modes, later: later, loading: loading) }

    private var workerFactor: Double

    init(_ outline: StageOutline, hints: JobHints, statistics: LearnedStatistics, workerFactor: Double, factor: JobFactor) {
        self.outline = outline
        self.workerFactor = workerFactor
        forecast = StageForecast(outline, hints: hints, statistics: statistics)
        mu = forecast.median.mu + workerFactor
        later = Self.later(forecast, mu: mu, factor: factor, loading: loading)
    }

    /// Takes in how many units it really has.
    mutating func setUnits(_ units: Double, hints: JobHints, statistics: LearnedStatistics, factor: JobFactor) {
        outline.units = units
        forecast = StageForecast(outline, hints: hints, statistics: statistics)
        mu = forecast.median.mu + workerFactor
        later = Self.later(forecast, mu: mu, factor: factor, loading: loading)
    }

    /// After a change of what all stages share.
    mutating func update(factor: JobFactor, loading: Double) {
        self.loading = loading
        later = Self.later(forecast, mu: mu, factor: factor, loading: loading)
    }

    /// A forecast that has one mode has it twice.
    private static func later(_ forecast: StageForecast, mu: Double, factor: JobFactor, loading: Double) -> (
        low: Remaining, high: Remaining
    ) {
        func remaining(_ offset: Double, _ variance: Double) -> Remaining {
            let part = LogNormal(mu: mu + offset, variance: factor.own(variance, loading))
            return Remaining(seconds: part.mean, variance: part.spread)
        }
        guard let modes = forecast.modes else {
            let one = remaining(0, forecast.median.variance)
            return (one, one)
        }
        return (remaining(modes.low.mu, modes.low.variance), remaining(modes.high.mu, modes.high.variance))
    }

    /// How far ln `seconds` is from the forecast, and the variance that belongs to it: of the nearer mode, if it has two.
    func residual(ofLog seconds: Double) -> (value: Double, variance: Double) {
        let residual = seconds - mu
        guard let modes = forecast.modes else { return (residual, forecast.median.variance) }
        let isLow = Self.likelihood(residual, modes.low, modes.share) > Self.likelihood(residual, modes.high, 1 - modes.share)
        let mode = isLow ? modes.low : modes.high
        return (residual - mode.mu, mode.variance)
    }

    private static func likelihood(_ x: Double, _ mode: LogNormal, _ share: Double) -> Double {
        log(share) - 0.5 * log(mode.variance) - 0.5 * (x - mode.mu) * (x - mode.mu) / mode.variance
    }

    /// ln of the duration that its ticks promise, and the variance of that; nil without ticks, or when they took no time
    /// (what was done before it began again says nothing).
    var rate: (log: Double, variance: Double)? {
        guard share > 0, tickTime >= 1e-3 else { return nil }
        return (log(tickTime / forecast.curve.time(at: share)), forecast.curve.rateVariance(at: share))
    }

    /// ln of its duration by forecast and ticks together, by their precision.
    func duration(_ factor: JobFactor, _ shared: (mean: Double, variance: Double)) -> LogNormal {
        let common = (mean: loading * shared.mean, variance: loading * loading * shared.variance)
        var own = LogNormal(mu: mu + common.mean, variance: factor.own(forecast.median.variance, loading) + common.variance)
        guard let rate else { return own }
        if forecast.modes != nil {
            // The ticks tell the mode.
            let (value, variance) = residual(ofLog: rate.log - common.mean)
            own = LogNormal(mu: rate.log - value, variance: factor.own(variance, loading) + common.variance)
        }
        let weights = (1 / own.variance, 1 / rate.variance)
        let precision = weights.0 + weights.1
        return LogNormal(mu: (own.mu * weights.0 + rate.log * weights.1) / precision, variance: 1 / precision)
    }
}
