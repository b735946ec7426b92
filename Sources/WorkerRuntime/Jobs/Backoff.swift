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
