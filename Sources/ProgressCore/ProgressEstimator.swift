/// One stage of a running job as tracker and estimator see it.
public struct StageProgress: Sendable, Hashable {
    public let name: String
    public let phase: Phase
    /// Share of the whole job, 0…1.
    public var weight: Double
    /// What its author or the job's plan expects; nil when nobody said.
    public var expectedMs: Double?
    /// Evidence: how much of it is done, 0…1; never falls.
    public var fraction = 0.0
    /// Time spent in earlier visits.
    public var spentMs = 0
    public var wasVisited = false
}

/// The stage that runs now, since it was last entered.
public struct StageVisit: Sendable, Hashable {
    /// Index into the stages.
    public let stage: Int
    public let enteredAtMs: Int
    public let fractionAtEntry: Double
    /// Ticks that moved it, and when the last one came.
    public var ticks = 0
    public var lastTickAtMs: Int
    /// Size of one tick as a share of the stage; 0 when it has not ticked.
    public var tickSize = 0.0
}

/// What can be said of the rest of a job.
public struct ProgressEstimate: Sendable, Hashable {
    /// Median of the remaining time, and the bounds of its 80 % interval; nil when nothing is known.
    public var remainingMs: Double?
    public var lowMs: Double?
    public var highMs: Double?
    /// Of the current stage alone: what the bar's speed follows.
    public var stageRemainingMs: Double?
    /// The interval is too wide to show a number.
    public var isEstimating: Bool
    /// No tick for much longer than usual.
    public var isStalled: Bool

    public init(isEstimating: Bool = true, isStalled: Bool = false) {
        self.isEstimating = isEstimating
        self.isStalled = isStalled
    }
}

/// Judges how long the rest will take. A pure value: time comes in as an argument.
public protocol ProgressEstimator: Sendable {
    /// - Parameters:
    ///   - atMs: now, on the clock of `visit`.
    ///   - stages: all stages of the job with what is known of them.
    ///   - visit: the current one, nil before the first.
    mutating func estimate(atMs: Int, stages: [StageProgress], visit: StageVisit?) -> ProgressEstimate
}

/// Remaining time from expected durations (or weights), scaled by the pace seen in this job.
///
/// Later stages take what their author expects times the *pace*: time spent over time expected so far, with the
/// expectation counted as some evidence of its own. The current stage mixes that forecast with what its own ticks say, by
/// their variances. Without expected durations only shares are known, so that nothing can be said before the first evidence.
public struct WeightedEstimator: ProgressEstimator {
    /// Relative spread (σ of the logarithm) of one stage against its forecast.
    private static let stageSpread = 0.4
    /// Share of the whole expected time that an author's expectation counts as evidence of pace.
    private static let priorShare = 0.15
    /// An interval wider than this σ is not shown as a number.
    private static let showableSpread = 0.7
    /// 80 % of a normal distribution lie within ± this many σ.
    private static let intervalSigma = 1.2816
    private static let paceBounds = 0.02...50.0

    public init() {}

    /// Expected duration of a stage and the pace, in the same unit of time.
    private struct Forecast {
        var scale: Double
        var isTimed: Bool
        var pace: Double
        /// Variance of the logarithm of `pace`; nil when there is no evidence at all.
        var paceVariance: Double?

        func expected(_ stage: StageProgress) -> Double { stage.expectedMs ?? stage.weight * scale }
    }

    public func estimate(atMs now: Int, stages: [StageProgress], visit: StageVisit?) -> ProgressEstimate {
        guard !stages.isEmpty else { return ProgressEstimate() }
        let forecast = Self.forecast(atMs: now, stages: stages, visit: visit)
        var result = ProgressEstimate()
        var mean = 0.0
        var variance = 0.0
        if let visit {
            guard let current = Self.current(atMs: now, stage: stages[visit.stage], visit: visit, forecast: forecast) else {
                return result
            }
            mean = current.remaining
            variance = current.variance
            result.stageRemainingMs = current.remaining
            result.isStalled = current.isStalled
        }
        let later = Self.later(stages: stages, visit: visit, forecast: forecast)
        if later > 0 {
            guard let paceVariance = forecast.paceVariance else { return result }
            // The stages vary each for itself; half of the spread is taken as shared, which the pace carries.
            variance += later * later * (paceVariance + Self.stageSpread * Self.stageSpread / 2)
        }
        mean += later
        guard mean > 0, mean.isFinite, variance.isFinite else {
            result.isEstimating = mean != 0
            result.remainingMs = mean == 0 ? 0 : nil
            return result
        }
        let relative = variance / (mean * mean)
        // Median of a log-normal with this mean and variance; e^x to second order is enough for bounds.
        let median = mean / (1 + relative).squareRoot()
        let spread = Self.logOnePlus(relative).squareRoot()
        let width = Self.intervalSigma * spread
        let factor = max(1 + width + width * width / 2, 1.02)
        result.remainingMs = median
        result.lowMs = median / factor
        result.highMs = median * factor
        result.isEstimating = spread > Self.showableSpread
        return result
    }

    private static func forecast(atMs now: Int, stages: [StageProgress], visit: StageVisit?) -> Forecast {
        var timedWeight = 0.0
        var timedMs = 0.0
        var totalWeight = 0.0
        for stage in stages {
            totalWeight += stage.weight
            if let expected = stage.expectedMs {
                timedWeight += stage.weight
                timedMs += expected
            }
        }
        let isTimed = timedWeight > 0 && timedMs > 0
        var forecast = Forecast(scale: isTimed ? timedMs / timedWeight : 1000, isTimed: isTimed, pace: 1, paceVariance: nil)
        var total = 0.0
        var spent = 0.0
        var covered = 0.0
        for (index, stage) in stages.enumerated() {
            let expected = forecast.expected(stage)
            total += expected
            guard stage.wasVisited else { continue }
            spent += Double(stage.spentMs)
            covered += expected * stage.fraction
            guard let visit, visit.stage == index else { continue }
            let elapsed = Double(now - visit.enteredAtMs)
            if visit.ticks > 0 {
                spent += Double(visit.lastTickAtMs - visit.enteredAtMs)
            } else if isTimed, elapsed > expected * (1 - stage.fraction) {
                // Overdue without a tick: at least this slow.
                spent += elapsed
                covered += expected * (1 - stage.fraction)
            }
        }
        total += max(0, 1 - totalWeight) * forecast.scale
        let prior = isTimed ? priorShare * total : 0
        if covered + prior > 0, spent + prior > 0 {
            forecast.pace = min(
                max((spent + prior) / (covered + prior), paceBounds.lowerBound),
                paceBounds.upperBound * (isTimed ? 1 : 1e9)
            )
            let share = covered / max(total, .leastNonzeroMagnitude)
            forecast.paceVariance = isTimed ? 0.25 / (1 + 8 * share) : 0.3 / (0.02 + 4 * share)
        }
        return forecast
    }

    private static func current(
        atMs now: Int,
        stage: StageProgress,
        visit: StageVisit,
        forecast: Forecast
    ) -> (remaining: Double, variance: Double, isStalled: Bool)? {
        let rest = 1 - stage.fraction
        let elapsed = Double(now - visit.enteredAtMs)
        var precision = 0.0
        var duration = 0.0
        if let paceVariance = forecast.paceVariance {
            let weight = 1 / (paceVariance + stageSpread * stageSpread)
            duration = forecast.expected(stage) * forecast.pace * weight
            precision = weight
        }
        let done = stage.fraction - visit.fractionAtEntry
        if visit.ticks > 0, done > 0 {
            let ticks = Double(visit.ticks)
            let weight = 1 / (0.0016 + 0.04 * (1 - min(done, 1)) / done + 0.3 / (ticks * ticks))
            duration += Double(visit.lastTickAtMs - visit.enteredAtMs) / done * weight
            precision += weight
        }
        guard precision > 0 else { return nil }
        duration /= precision
        let spread = (1 / precision).squareRoot()
        if rest <= 0 { return (0, 0, false) }
        if visit.ticks > 0 {
            // Never below the work that remains after the next tick; a late tick adds half of its lateness.
            let quiet = Double(now - visit.lastTickAtMs)
            let gap = duration * visit.tickSize
            let late = max(0, quiet - 5 * gap - 500)
            let remaining = max(duration * rest - quiet, duration * max(0, rest - visit.tickSize)) + late / 2
            let deviation = remaining * spread
            let lateness = max(0, quiet - gap) / 2
            return (remaining, deviation * deviation + lateness * lateness, visit.ticks > 1 && quiet > 5 * gap + 2000)
        }
        // Without ticks: what has lasted longer than expected goes on for a share of its age.
        let remaining = max(duration * rest - elapsed, elapsed * spread / 2, 0)
        let deviation = max(remaining, duration * rest / 2) * spread
        return (remaining, deviation * deviation, forecast.isTimed && elapsed > 5 * duration + 10_000)
    }

    /// All other stages, and the share that no known stage covers (a job that is still learning its stages).
    private static func later(stages: [StageProgress], visit: StageVisit?, forecast: Forecast) -> Double {
        var sum = 0.0
        var weight = 0.0
        for (index, stage) in stages.enumerated() {
            weight += stage.weight
            if index != visit?.stage { sum += forecast.expected(stage) * (1 - stage.fraction) }
        }
        let unknown = 1 - weight
        if unknown > 1e-9 { sum += unknown * forecast.scale }
        return sum * forecast.pace
    }

    /// ln(1 + x) for x ≥ 0, to 1e-4. The core has no C library; ln m = 2 atanh((m−1)/(m+1)) converges fast for m ≤ 2.
    private static func logOnePlus(_ x: Double) -> Double {
        var mantissa = 1 + x
        var result = 0.0
        while mantissa > 2, result < 100 {
            mantissa /= 2
            result += 0.693_147_180_559_945_3
        }
        let z = (mantissa - 1) / (mantissa + 1)
        let square = z * z
        return result + 2 * z * (1 + square / 3 + square * square / 5 + square * square * square / 7)
    }
}
