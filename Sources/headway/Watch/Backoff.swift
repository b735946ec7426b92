/// When to try again: full jitter over a window that doubles with each failure, unless the server named the moment.
struct Backoff: Sendable {
    private(set) var failures = 0
    private var base = Limits.retryBase
    private var slot: Duration?

    /// The server's `retry:`. A draining gateway gives each client its own, so the next attempt keeps to it exactly.
    mutating func serverAsked(milliseconds: Int) {
        base = .milliseconds(min(max(milliseconds, 0), DurationText.milliseconds(.seconds(300))))
        slot = base
    }

    mutating func succeeded() { failures = 0 }

    /// Counts a failure and says how long to wait.
    /// - Parameter random: 0 ..< 1.
    mutating func next(random: Double) -> Duration {
        defer {
            failures += 1
            slot = nil
        }
        if let slot { return slot }
        let window = min(DurationText.milliseconds(Limits.retryCap), max(1, DurationText.milliseconds(base)) << min(failures, 16))
        return .milliseconds(Int64(Double(window) * random))
    }
}
