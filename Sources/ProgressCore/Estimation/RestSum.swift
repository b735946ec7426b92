import Glibc

/// The sum of the remaining times of all stages, while it is being made, and its distribution.
struct RestSum {
    /// Of stages with one mode.
    private var certain = Remaining(seconds: 0, variance: 0)
    /// The part of it that the job factor scales.
    private var scaled = 0.0
    /// Of stages with two modes: at most two are kept apart, the others enter by mean and variance.
    private var first: Either?
    private var second: Either?
    private(set) var mean = 0.0

    private struct Either {
        var share: Double
        var low: Remaining
        var high: Remaining
        /// How much of the job factor it feels.
        var loading: Double
    }

    struct Distribution {
        /// The median of what may come, each outcome weighted by one over the duration that the job then has.
        ///
        /// It has the least expected error as a share of the job's duration: ten seconds are much for a short job and little
        /// for a long one.
        var estimate: Double
        /// Of the logarithm.
        var sigma: Double
        /// Cautious expectation, for the bar.
        var barRest: Double
    }

    mutating func add(_ rest: Remaining) {
        certain.seconds += rest.seconds
        certain.variance += rest.variance
        mean += rest.seconds
    }

    /// `low` with probability `share`, else `high`.
    mutating func addEither(_ share: Double, _ low: Remaining, _ high: Remaining) {
        if share < 0.02 { return add(high) }
        if share > 0.98 { return add(low) }
        put(Either(share: share, low: low, high: high, loading: 0))
    }

    /// A stage that has not begun.
    ///
    /// - Parameter scale: e to the job factor.
    mutating func addLater(_ stage: RunningStage.Ahead, scale: Double) {
        func scaled(_ rest: Remaining) -> Remaining {
            Remaining(seconds: rest.seconds * scale, variance: rest.variance * scale * scale)
        }
        let share = min(max(stage.probability, 0), 1)
        if let modes = stage.modes, share == 1 {
            return put(Either(share: modes.share, low: scaled(stage.later.low), high: scaled(stage.later.high), loading: stage.loading))
        }
        var rest = scaled(stage.later.low)
        if let modes = stage.modes { rest = Self.mixed(modes.share, rest, scaled(stage.later.high)) }
        if share < 1 { rest = Self.mixed(share, rest, Remaining(seconds: 0, variance: 0)) }
        add(rest)
        self.scaled += stage.loading * rest.seconds
    }

    private mutating func put(_ either: Either) {
        let rest = Self.mixed(either.share, either.low, either.high)
        if first == nil {
            first = either
        } else if second == nil {
            second = either
        } else {
            add(rest)
            scaled += either.loading * rest.seconds
            return
        }
        mean += rest.seconds
    }

    private static func mixed(_ share: Double, _ a: Remaining, _ b: Remaining) -> Remaining {
        let mean = share * a.seconds + (1 - share) * b.seconds
        let square = share * (a.variance + a.seconds * a.seconds) + (1 - share) * (b.variance + b.seconds * b.seconds)
        return Remaining(seconds: mean, variance: max(0, square - mean * mean))
    }

    /// One way it may go: with the stages of two modes decided.
    private struct Case {
        var share = 1.0
        var rest: Remaining
        var scaled: Double
        var mu = 0.0
        var sigma = 0.0

        mutating func take(_ either: Either?, low: Bool) {
            guard let either else {
                if !low { share = 0 }
                return
            }
            share *= low ? either.share : 1 - either.share
            let part = low ? either.low : either.high
            rest.seconds += part.seconds
            rest.variance += part.variance
            scaled += either.loading * part.seconds
        }

        /// - Parameter shared: variance of the job factor.
        mutating func close(shared: Double) {
            rest.variance += scaled * scaled * shared
            rest.seconds = max(rest.seconds, 1e-3)
            let variance = log1p(rest.variance / (rest.seconds * rest.seconds))
            mu = log(rest.seconds) - variance / 2
            sigma = max(variance, Tuning.leastWidth * Tuning.leastWidth).squareRoot()
        }

        /// How much the weight one over duration moves the median of the logarithm: it is exp(-cx) near the median, with c the
        /// share of the duration that is still to come, and a normal distribution times that has its mean moved by cσ².
        func shortening(_ elapsed: Double) -> Double {
            let median = exp(mu)
            return Tuning.shortness * min(sigma * sigma, Tuning.shortnessVariance) * median / (median + elapsed)
        }
    }

    func distribution(sharedVariance: Double, elapsed: Double) -> Distribution {
        func outcome(_ low: (Bool, Bool)) -> Case {
            var one = Case(rest: certain, scaled: scaled)
            one.take(first, low: low.0)
            one.take(second, low: low.1)
            one.close(shared: sharedVariance)
            return one
        }
        let all = outcome((true, true))
        guard first != nil else {
            let median = exp(all.mu)
            let doubt = Tuning.barCaution * all.sigma * all.sigma + Tuning.barDoubt * max(0, all.sigma - Tuning.showableSpread)
            return Distribution(estimate: median * exp(-all.shortening(elapsed)), sigma: all.sigma, barRest: median * exp(min(doubt, 20)))
        }
        let cases: InlineArray<4, Case> = [all, outcome((false, true)), outcome((true, false)), outcome((false, false))]
        var mean = 0.0
        var square = 0.0
        var bounds = (all.mu, all.mu)
        for index in cases.indices where cases[index].share > 0 {
            let rest = cases[index].rest
            mean += cases[index].share * rest.seconds
            square += cases[index].share * (rest.variance + rest.seconds * rest.seconds)
            bounds.0 = min(bounds.0, cases[index].mu - 3 * cases[index].sigma)
            bounds.1 = max(bounds.1, cases[index].mu + 3 * cases[index].sigma)
        }
        var weighted = cases
        var total = 0.0
        for index in cases.indices where cases[index].share > 0 {
            weighted[index].share /= elapsed + exp(cases[index].mu)
            weighted[index].mu -= cases[index].shortening(elapsed)
            total += weighted[index].share
        }
        let median = Self.median(weighted, total: total, between: bounds)
        let variance = log(max(square / (mean * mean), 1))
        let sigma = max(variance, Tuning.leastWidth * Tuning.leastWidth).squareRoot()
        return Distribution(estimate: exp(median), sigma: sigma, barRest: mean)
    }

    /// The median of a mixture has no formula. False position with the Illinois rule (Dowell and Jarratt 1971) finds it in some
    /// eight steps, to a ten-millionth of the probability; every fourth step halves, for mixtures with a gap in the middle.
    private static func median(_ cases: InlineArray<4, Case>, total: Double, between bounds: (Double, Double)) -> Double {
        var (low, high) = bounds
        var (below, above) = (-0.5 * total, 0.5 * total)
        var middle = 0.5 * (low + high)
        var wasBelow: Bool?
        for step in 1...26 {
            var excess = -0.5 * total
            for index in cases.indices where cases[index].share > 0 {
                excess += cases[index].share * Normal.cumulative((middle - cases[index].mu) / cases[index].sigma)
            }
            if abs(excess) < 1e-7 * total { break }
            if excess < 0 {
                (low, below) = (middle, excess)
                if wasBelow == true { above *= 0.5 }
            } else {
                (high, above) = (middle, excess)
                if wasBelow == false { below *= 0.5 }
            }
            wasBelow = excess < 0
            middle = step % 4 == 0 ? 0.5 * (low + high) : (low * above - high * below) / (above - below)
        }
        return middle
    }
}
