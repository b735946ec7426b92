import Glibc

extension QueueForecast.Waiting {
    /// A job that has not begun, by what earlier jobs of its pipeline took and what it says of itself: the same estimate that
    /// its worker will begin with.
    public init(
        pipeline: Pipeline,
        plan: [PlannedStage] = [],
        statistics: LearnedStatistics = LearnedStatistics(),
        hints: JobHints = JobHints()
    ) {
        var tracker = ProgressTracker(pipeline: pipeline, plan: plan, statistics: statistics, hints: hints, startedAtMs: 0)
        let estimate = tracker.estimator.estimate(at: 0)
        let variance = Self.variance(low: estimate.lowMs, high: estimate.highMs)
        self.init(durationMs: estimate.remainingMs * Self.lengthening(variance, share: 1), variance: variance)
    }

    /// An estimate is told a little short, so that it errs least as a share of the job's duration (`RestSum`). In a sum over
    /// many jobs that would add up: what it is the median of is this much longer.
    ///
    /// - Parameter share: of the job's whole duration that is still to come.
    static func lengthening(_ variance: Double, share: Double) -> Double {
        exp(Tuning.shortness * min(variance, Tuning.shortnessVariance) * share)
    }

    /// Of the logarithm, from the bounds of an 80 % interval.
    static func variance(low: Double, high: Double) -> Double {
        guard low > 0, high > low, high.isFinite else { return Tuning.smallestSpread * Tuning.smallestSpread }
        let sigma = log(high / low) / (2 * 1.2816)
        return min(sigma * sigma, Tuning.largestVariance)
    }
}

extension QueueForecast.Busy {
    /// A job that has told its remaining time `ageMs` ago, with the bounds of its interval.
    ///
    /// - Parameter elapsedMs: since it began.
    public init(etaMs: Double, lowMs: Double, highMs: Double, ageMs: Double, elapsedMs: Double = 0, slowness: Double = 1) {
        let variance = QueueForecast.Waiting.variance(low: lowMs, high: highMs)
        let whole = etaMs + max(0, elapsedMs - ageMs)
        let share = whole.isFinite && whole > 0 ? min(max(etaMs / whole, 0), 1) : 0
        let median = etaMs * QueueForecast.Waiting.lengthening(variance, share: share)
        self.init(job: QueueForecast.Waiting(durationMs: median, variance: variance), elapsedMs: ageMs, slowness: slowness)
    }

    /// A job of which nothing is known but how long such jobs take on this worker, and for how long it has been running.
    public init(job: QueueForecast.Waiting, elapsedMs: Double, slowness: Double = 1) {
        let duration = job.durationMs.isFinite ? min(max(job.durationMs, 1), Double(ProgressLimits.durationMs)) : 1
        let variance =
            job.variance.isFinite
            ? min(max(job.variance, Tuning.smallestSpread * Tuning.smallestSpread), Tuning.largestVariance) : Tuning.largestVariance
        let elapsed = elapsedMs.isFinite ? min(max(elapsedMs, 0), Double(ProgressLimits.durationMs)) : 0
        let rest = LogNormal(mu: log(duration / 1000), variance: variance).remaining(after: elapsed / 1000)
        let seconds = max(rest.seconds, 0.001)
        self.init(
            remainingMs: seconds * 1000,
            variance: min(log1p(rest.variance / (seconds * seconds)), Tuning.largestVariance),
            slowness: slowness
        )
    }
}

extension LearnedStatistics {
    /// Durations on this worker against those of the pipeline's workers at large, e.g. 2 for one that is half as fast.
    public func slowness(of worker: String) -> Double {
        guard let name = StageName.sanitised(worker), let own = values(StageKey.worker(name))?.first, own.isFinite else { return 1 }
        return exp(min(max(own, -4), 4))
    }
}
