/// A bar that is told speeds instead of places: it never jumps, never falls and never ends by itself. Clients draw it
/// between two messages by the same rule.
struct MovingBar {
    /// Where it was when it was last steered, 0…1, and when; and how fast it goes since.
    private(set) var position = 0.0
    private(set) var speed = 0.0
    private var steeredAt = 0.0

    init(startedAt: Double) { steeredAt = startedAt }

    /// Its place at a time (in seconds), at most nine tenths of the rest beyond the last steering.
    func place(at now: Double) -> Double {
        min(position + speed * max(0, now - steeredAt), position + 0.9 * (1 - position))
    }

    /// Sets the speed so that it reaches its end when the rest is over: faster when it is behind where it should be,
    /// slower when it is ahead, and never still.
    ///
    /// - Parameters:
    ///   - elapsed: since the job began, in seconds.
    ///   - rest: how long it is expected to go on.
    mutating func steer(at now: Double, elapsed: Double, rest: Double) {
        let place = place(at: now)
        let target = elapsed > 0 ? elapsed / (elapsed + rest) : 0
        let gap = target - place
        let factor = gap > 0 ? 1 + Tuning.catchUp * gap : max(Tuning.slowest, 1 + Tuning.slowDown * gap)
        position = place
        steeredAt = now
        speed = factor * (1 - place) / max(rest, Tuning.shortestRest)
    }
}
