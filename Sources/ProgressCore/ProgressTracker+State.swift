extension ProgressTracker {
    /// The progress to show now.
    ///
    /// Between ticks the bar goes on at the speed that was told last, as clients draw it, but never past the next tick (or
    /// the last twentieth of a stage that does not tick): when the evidence arrives, the bar is not already beyond it.
    public mutating func state(atMs: Int) -> ProgressState {
        advanceClock(to: atMs)
        let estimate = estimator.estimate(atMs: now, stages: stages, visit: visit)
        let evidence = evidencePercent
        let ceiling = evidence + headroom(near: true)
        let drawn = bar.percent + bar.perSecond * Double(now - bar.atMs) / 1000
        let percent = min(max(bar.percent, evidence, min(drawn, ceiling)), ProgressLimits.percentBeforeEnd)
        var perSecond: Double?
        if let remaining = estimate.stageRemainingMs {
            let stageEnd = min(evidence + headroom(near: false), ProgressLimits.percentBeforeEnd)
            let isHeld = percent >= ceiling && isTickOverdue
            perSecond = isHeld ? 0 : FourDigits.rounded(max(0, stageEnd - percent) / max(remaining / 1000, 0.05))
        }
        bar = (percent, now, perSecond ?? 0)
        movePhase(percent: percent, evidence: evidence)

        var state = ProgressState(phase: phase)
        state.phasePercent = Self.tenths(phasePercent)
        state.percent = Self.tenths(percent)
        state.percentPerSecond = perSecond
        state.stage = stageName
        state.stagePercent = shownFraction.map { Self.tenths($0 * 100) }
        state.step = step
        state.steps = steps
        state.item = item
        state.items = items
        state.message = message
        state.isEstimating = estimate.isEstimating
        state.isStalled = estimate.isStalled
        state.etaMs = Self.milliseconds(estimate.remainingMs)
        state.etaLowMs = Self.milliseconds(estimate.lowMs)
        state.etaHighMs = Self.milliseconds(estimate.highMs)
        return state
    }

    /// The next tick should have come by now (a stage without ticks has none to wait for). A bar at its ceiling is told to stand
    /// still only then: where ticks come faster than reports it stands there at every report, and moves on.
    private var isTickOverdue: Bool {
        guard let visit, visit.ticks > 0 else { return true }
        return now - visit.lastTickAtMs > (visit.lastTickAtMs - visit.enteredAtMs) / visit.ticks
    }

    /// What is certainly done, 0…100.
    private var evidencePercent: Double {
        var sum = 0.0
        for stage in stages { sum += stage.weight * stage.fraction }
        return min(sum * 100, ProgressLimits.percentBeforeEnd)
    }

    /// How far the current stage may still move the bar, in points: to its next tick, or to its end.
    private func headroom(near: Bool) -> Double {
        guard let visit else { return 0 }
        let stage = stages[visit.stage]
        let rest = 1 - stage.fraction
        guard near else { return stage.weight * rest * 100 }
        return stage.weight * 100 * (visit.ticks > 0 ? min(visit.tickSize, rest) : rest * 0.95)
    }

    private mutating func movePhase(percent: Double, evidence: Double) {
        var weight = 0.0
        var done = 0.0
        for stage in stages where stage.phase == phase {
            weight += stage.weight
            done += stage.weight * stage.fraction
        }
        // A job that learns its stages has room for more of them in the same phase.
        if stages.isEmpty { return }
        let isOnlyPhase = stages.allSatisfy { $0.phase == phase }
        if isOnlyPhase { weight = 1 }
        guard weight > 0 else { return }
        let value = (done * 100 + max(0, percent - evidence)) / weight
        phasePercent = max(phasePercent, min(value, 100))
        if isOnlyPhase { phasePercent = min(phasePercent, ProgressLimits.percentBeforeEnd) }
    }

    /// One decimal, downwards: 99.99 must not read 100.
    private static func tenths(_ value: Double) -> Double {
        // The small addition keeps 42.3 from reading 42.2 because it is stored as 42.2999….
        Double(Int(min(max(value, 0), 100) * 10 + 1e-6)) / 10
    }

    private static func milliseconds(_ value: Double?) -> Int? {
        value.map { $0.isFinite ? Int(min(max($0, 0), Double(ProgressLimits.durationMs)) + 0.5) : ProgressLimits.durationMs }
    }
}

/// Speeds travel with four significant digits: enough to draw a bar for hours, short on the wire.
enum FourDigits {
    static func rounded(_ value: Double) -> Double {
        guard value.isFinite, value > 1e-9 else { return 0 }
        var scale = 1.0
        var scaled = value
        while scaled < 1000 {
            scaled *= 10
            scale *= 10
        }
        while scaled >= 10_000 {
            scaled /= 10
            scale /= 10
        }
        // Below 10 000 here, so that it fits.
        return Double(Int(value * scale + 0.5)) / scale
    }
}
