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
        self.init(
            durationMs: estimate.remainingMs,
            variance: Self.variance(low: estimate.lowMs, high: estimate.highMs)
        )
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
    public init(etaMs: Double, lowMs: Double, highMs: Double, ageMs: Double, slowness: Double = 1) {
        let told = QueueForecast.Waiting(durationMs: etaMs, variance: QueueForecast.Waiting.variance(low: lowMs, high: highMs))
        self.init(job: told, elapsedMs: ageMs, slowness: slowness)
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
