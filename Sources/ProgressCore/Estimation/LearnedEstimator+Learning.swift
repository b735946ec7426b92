import Glibc

extension RunningStage {
    /// Forgets what was seen of it: it runs once more.
    mutating func restart() {
        isDone = false
        (share, tickSize, ticks, tickTime, spent) = (0, 0, 0, 0, 0)
        (duration, curve, rateErrors, wasLeft) = (nil, nil, nil, false)
    }

    /// Carries on with what was seen of the same stage in another list.
    mutating func take(from old: RunningStage, hints: JobHints, statistics: LearnedStatistics, factor: JobFactor) {
        if let units = old.outline.units, outline.units == nil {
            setUnits(units, hints: hints, statistics: statistics, factor: factor)
        }
        (isDone, share, tickSize, ticks) = (old.isDone, old.share, old.tickSize, old.ticks)
        (tickTime, spent, wasLeft) = (old.tickTime, old.spent, old.wasLeft)
        (duration, curve, rateErrors) = (old.duration, old.curve, old.rateErrors)
    }
}

extension LearnedEstimator {
    /// What the job taught, at its good end. The current stage must have been left.
    ///
    /// - Parameter route: its stages in order, when it had not announced them.
    public func record(endedAt: Double, route: StageRoute?) -> LearningRecord {
        var record = LearningRecord(worker: hints.worker)
        let total = max(0, endedAt - startedAt)
        for bucket in samples.indices {
            guard let sample = samples[bucket], sample.rest > 0, sample.sigma > 0 else { continue }
            let deviation = log(max(total - sample.elapsed, 1e-3) / sample.rest) / sample.sigma
            record.deviations[bucket] = min(max(deviation, -100), 100)
        }
        learnCommon(into: &record)
        var errors = (sum: 0.0, weight: 0.0)
        for (slot, stage) in stages.enumerated() {
            guard let duration = stage.duration, duration.isFinite else { continue }
            // Where nothing ever passes before the first stage there is nothing to learn about it.
            if slot == 0, duration < Tuning.shortestStart, stage.forecast.weight == 0 { continue }
            learn(stage, duration: duration, into: &record)
            guard stage.forecast.weight > 3 else { continue }
            let (residual, variance) = stage.residual(ofLog: log(duration))
            let limit = 3 * variance.squareRoot() + 0.7
            let weight = duration * duration / variance
            let fromSums = residual + statistics.workerFactor(hints.worker)
            errors.sum += weight * min(max(fromSums, -limit), limit)
            errors.weight += weight
        }
        if errors.weight > 0 { record.workerError = errors.sum / errors.weight }
        record.route = route
        return record
    }

    /// How far each stage and the others together (their mean, weighted by duration) were off in the same direction: the mean
    /// of these products is the variance of what they share.
    private func learnCommon(into record: inout LearningRecord) {
        var parts: [(name: String, residual: Double, weight: Double)] = []
        for stage in stages {
            guard let duration = stage.duration, duration.isFinite, stage.forecast.weight > 3 else { continue }
            let residual = stage.residual(ofLog: log(duration)).value
            parts.append((stage.outline.name, min(max(residual, -Tuning.commonClip), Tuning.commonClip), exp(stage.mu)))
        }
        let sum = parts.reduce(0) { $0 + $1.weight * $1.residual }
        let weight = parts.reduce(0) { $0 + $1.weight }
        for part in parts where weight - part.weight > 0.01 * weight {
            let others = (sum - part.weight * part.residual) / (weight - part.weight)
            let terms = [1, part.residual * others]
            record.additions.append(.init(field: StageKey.common(part.name), decay: Tuning.forgetting, terms: .values(terms)))
        }
    }

    private func learn(_ stage: RunningStage, duration: Double, into record: inout LearningRecord) {
        let name = stage.outline.name
        let forecast = stage.forecast
        // The sums hold durations at the usual speed: a change of speed leaves them as they are.
        let y = log(duration) - Tuning.speedShare * statistics.workerFactor(hints.worker)
        func add(_ field: String, _ values: [Double]) {
            record.additions.append(.init(field: field, decay: Tuning.forgetting, terms: .values(values)))
        }
        if forecast.weight >= 0.9 {
            let residual = log(duration) - stage.mu
            let limit = min(1.2, 4 * forecast.median.variance.squareRoot())
            let clipped = min(max(residual, -limit), limit)
            add(StageKey.residuals(name), [1, clipped * clipped])
            let bin = ResidualHistogram.bin(of: residual)
            record.additions.append(
                .init(
                    field: StageKey.histogram(name),
                    decay: Tuning.histogramForgetting,
                    terms: .bin(bin, width: ResidualHistogram.bins)
                )
            )
        }
        if let curve = stage.curve { add(StageKey.curve(name), [1] + curve) }
        if let errors = stage.rateErrors { add(StageKey.rateErrors(name), [1] + errors) }
        let (x1, x2) = (forecast.x1, forecast.x2)
        let terms = [1, x1, x2, y, x1 * x1, x1 * x2, x2 * x2, x1 * y, x2 * y]
        let temperature = StageKey.temperature(hints.isCold)
        add(StageKey.sums(name, hints.jobClass, temperature), terms)
        add(StageKey.sums(name, hints.jobClass, StageKey.anyTemperature), terms)
        add(StageKey.sums(name, StageKey.anyClass, temperature), terms)
    }
}

extension JobFactor {
    var isUntouched: Bool { precision == 0 }
}
