import Glibc

/// What a job says of one of its stages before it runs.
public struct StageOutline: Sendable, Hashable {
    public var name: String
    public var phase: Phase
    /// Steps; nil when it has none or nobody said.
    public var units: Double?
    /// Relative cost in the unit the stage scales with (megapixels, panels, …).
    public var work: Double?
    /// Somebody's guess of its duration.
    public var declaredMs: Double?
    /// How likely it is to run at all, 0…1.
    public var probability: Double

    public init(
        name: String,
        phase: Phase = .generating,
        units: Double? = nil,
        work: Double? = nil,
        declaredMs: Double? = nil,
        probability: Double = 1
    ) {
        self.name = name
        self.phase = phase
        self.units = units
        self.work = work
        self.declaredMs = declaredMs
        self.probability = probability
    }
}

/// The duration of one stage as the statistics predict it: ln d = b0 + b1 ln units + b2 ln work, normally distributed.
///
/// The coefficients solve a ridge regression on the sums of the stage's own key (class and temperature), of its two parents
/// (any class; any temperature) with a small weight, and of the declared duration as a pseudo-observation, with the
/// exponents pulled towards 1. So the first job is predicted by its author, the second mostly by the first.
struct StageForecast {
    /// Of ln seconds; without the worker's factor.
    var median: LogNormal
    /// ln units and ln work, for learning.
    var x1: Double
    var x2: Double
    /// Jobs behind it.
    var weight: Double
    /// Two heaps of durations, as offsets to `median`.
    var modes: StageModes?
    var curve: TickCurve
    /// Its covariance with the rest of the job, as far as it was seen: what both have in common.
    var common: Double

    init(_ stage: StageOutline, hints: JobHints, statistics: LearnedStatistics) {
        let temperature = StageKey.temperature(hints.isCold)
        var sums = statistics.values(StageKey.sums(stage.name, hints.jobClass, temperature)) ?? [Double](repeating: 0, count: 9)
        let own = sums[0]
        for (jobClass, temperature) in [(hints.jobClass, StageKey.anyTemperature), (StageKey.anyClass, temperature)] {
            guard let parent = statistics.values(StageKey.sums(stage.name, jobClass, temperature)) else { continue }
            let weight = Tuning.parentWeight / (1 + own) / max(parent[0], 1)
            for index in sums.indices { sums[index] += weight * parent[index] }
        }
        weight = sums[0]
        x1 = Self.logarithm(stage.units) ?? (weight > 0 ? sums[1] / weight : 0)
        x2 = Self.logarithm(stage.work) ?? (weight > 0 ? sums[2] / weight : 0)
        let declared = stage.declaredMs.flatMap { $0 > 0 ? min($0, Double(ProgressLimits.durationMs)) / 1000 : nil }
        let mu = Self.solve(
            sums,
            x1: x1,
            x2: x2,
            declared: log(declared ?? Tuning.undeclaredSeconds),
            weight: (declared == nil ? Tuning.undeclaredWeight : Tuning.declaredWeight) / (1 + weight),
            exponent: stage.units == nil ? 0 : 1
        )
        let isTrusted = weight >= Tuning.trustedJobs
        let assumed = isTrusted ? Tuning.learnedSpread : declared == nil ? Tuning.undeclaredSpread : Tuning.declaredSpread
        let residuals = statistics.values(StageKey.residuals(stage.name)) ?? [0, 0]
        var variance = (residuals[1] + Tuning.spreadWeight * assumed * assumed) / (residuals[0] + Tuning.spreadWeight)
        variance = isTrusted ? variance * (1 + 1 / (weight + 1)) : max(variance, assumed * assumed / (1 + 3 * weight))
        variance = min(max(variance, Tuning.smallestSpread * Tuning.smallestSpread), Tuning.largestVariance)
        median = LogNormal(mu: mu, variance: variance)
        let products = statistics.values(StageKey.common(stage.name)) ?? [0, 0]
        common = max(0, products[1] + Tuning.commonWeight * Tuning.jobVariance) / (max(products[0], 0) + Tuning.commonWeight)
        modes = statistics.values(StageKey.histogram(stage.name)).flatMap(ResidualHistogram.modes)
        curve = TickCurve(
            shares: statistics.values(StageKey.curve(stage.name)),
            errors: statistics.values(StageKey.rateErrors(stage.name))
        )
    }

    /// From a thousandth of a second to the longest job.
    private static let bounds = log(0.001)...log(Double(ProgressLimits.durationMs) / 1000)

    private static func logarithm(_ value: Double?) -> Double? {
        guard let value, value > 0, value <= ProgressLimits.planUnits else { return nil }
        return log(max(value, 1e-6))
    }

    /// The prediction at (x1, x2): Gaussian elimination of the 3×3 normal equations, which the ridge keeps regular.
    private static func solve(
        _ s: [Double],
        x1: Double,
        x2: Double,
        declared y: Double,
        weight w: Double,
        exponent: Double
    ) -> Double {
        let a00 = s[0] + w
        let a01 = s[1] + w * x1
        let a02 = s[2] + w * x2
        let a11 = s[4] + w * x1 * x1 + Tuning.ridge
        let a12 = s[5] + w * x1 * x2
        let a22 = s[6] + w * x2 * x2 + Tuning.ridge
        let r0 = s[3] + w * y
        let r1 = s[7] + w * x1 * y + Tuning.ridge * exponent
        let r2 = s[8] + w * x2 * y + Tuning.ridge
        let b11 = a11 - a01 / a00 * a01
        let b12 = a12 - a01 / a00 * a02
        let b22 = a22 - a02 / a00 * a02
        let q1 = r1 - a01 / a00 * r0
        let q2 = r2 - a02 / a00 * r0
        let c2 = (q2 - b12 / b11 * q1) / (b22 - b12 / b11 * b12)
        let c1 = (q1 - b12 * c2) / b11
        let mu = (r0 - a01 * c1 - a02 * c2) / a00 + c1 * x1 + c2 * x2
        // Sums that do not belong together (a damaged import) may give anything.
        guard mu.isFinite else { return y }
        return min(max(mu, bounds.lowerBound), bounds.upperBound)
    }
}
