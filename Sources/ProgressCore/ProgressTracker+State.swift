extension ProgressTracker {
    /// The progress to show now. `percent` is where clients draw the bar anyway, by the state that was published last; the new
    /// estimate changes only its speed.
    public mutating func state(atMs: Int) -> ProgressState {
        advanceClock(to: atMs)
        let time = Self.seconds(now)
        let estimate = estimator.estimate(at: time, phase: phase)
        let percent = min(bar.place(at: time) * 100, ProgressLimits.percentBeforeEnd)
        let speed = bar.speed(at: time, elapsed: time - Self.seconds(startedAtMs), rest: estimate.barRest) * 100
        movePhase(percent: percent, remainingMs: estimate.phaseRemainingMs)

        var state = ProgressState(phase: phase)
        state.phasePercent = Self.tenths(phasePercent)
        state.percent = Self.tenths(percent)
        state.percentPerSecond = percent < ProgressLimits.percentBeforeEnd ? FourDigits.rounded(speed) : 0
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

    /// Watchers have been sent `state`: from now on they draw its speed.
    public mutating func published(_ state: ProgressState, atMs: Int) {
        advanceClock(to: atMs)
        bar.tell(speed: (state.percentPerSecond ?? 0) / 100, at: Self.seconds(now))
    }

    /// The share of the phase's expected time that has passed.
    private mutating func movePhase(percent: Double, remainingMs: Double) {
        if stages.allSatisfy({ $0.outline.phase == phase }) {
            phasePercent = max(phasePercent, percent)
            return
        }
        let elapsed = Double(now - phaseBeganAtMs)
        guard elapsed > 0 else { return }
        phasePercent = max(phasePercent, min(100 * elapsed / (elapsed + remainingMs), 100))
    }

    /// One decimal, downwards: 99.99 must not read 100.
    private static func tenths(_ value: Double) -> Double {
        // The small addition keeps 42.3 from reading 42.2 because it is stored as 42.2999….
        Double(Int(min(max(value, 0), 100) * 10 + 1e-6)) / 10
    }

    private static func milliseconds(_ value: Double) -> Int {
        value.isFinite ? Int(min(max(value, 0), Double(ProgressLimits.durationMs)) + 0.5) : ProgressLimits.durationMs
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
