import NIOCore

/// Full jitter: before attempt n wait a uniform time in 0 … min(max, base · 2ⁿ), so that many clients do not return as one
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
struct Backoff {
    private(set) var attempt = 0
    let base: TimeAmount
    let max: TimeAmount
    /// A number in 0 ... 1; injected, so that tests know it.
    let random: @Sendable () -> Double

    init(limits: RedisLimits, random: @escaping @Sendable () -> Double = { Double.random(in: 0...1) }) {
        base = limits.reconnectDelayBase
        max = limits.reconnectDelayMax
        self.random = random
    }

    mutating func next() -> TimeAmount {
        // 2^30 · any base is beyond any sensible maximum; more would overflow.
        let ceiling = min(Double(max.nanoseconds), Double(base.nanoseconds) * Double(1 << min(attempt, 30)))
        attempt += 1
        return .nanoseconds(Int64(ceiling * min(1, Swift.max(0, random()))))
    }

    mutating func reset() { attempt = 0 }
}
