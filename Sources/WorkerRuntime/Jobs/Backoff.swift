/// Doubling delays with full jitter: many workers that lost the same Redis do not come back at the same moment.
struct Backoff {
    private let range: ClosedRange<Int>
    private var bound: Int

    init(_ rangeMs: ClosedRange<Int> = WorkerLimits.retryDelayMs) {
        range = rangeMs
        bound = rangeMs.lowerBound
    }

    /// The next delay. `random` is in 0..<1.
    mutating func next(random: Double) -> Duration {
        // Never less than a tenth, so that a run of small numbers is no storm.
        let delay = max(Double(bound) * random, Double(bound) / 10)
        bound = min(bound * 2, range.upperBound)
        return .milliseconds(Int(delay) + 1)
    }

    mutating func reset() { bound = range.lowerBound }
}

/// Slows a worker down whose jobs fail at once, one after another: a missing library must not burn a whole queue.
struct CrashLoopGuard {
    private var failures = 0

    /// Notes how a job ended and gives the delay before the next claim.
    mutating func note(failedAfterMs: Int?, random: Double) -> Duration {
        guard let failedAfterMs, failedAfterMs < WorkerLimits.instantFailureMs else {
            failures = 0
            return .zero
        }
        failures += 1
        let excess = failures - WorkerLimits.instantFailures
        guard excess >= 0 else { return .zero }
        let range = WorkerLimits.crashLoopDelayMs
        let bound = min(range.lowerBound << min(excess, 16), range.upperBound)
        return .milliseconds(bound / 2 + Int(Double(bound / 2) * random))
    }
}
