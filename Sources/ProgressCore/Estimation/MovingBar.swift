/// A bar that is told speeds instead of places: it never jumps, never falls and never ends by itself. Clients draw it
/// between two messages by the same rule.
struct MovingBar {
    /// Where it was when it was last told a speed, 0…1, and when; and how fast it goes since, per second.
    private var position = 0.0
    private var speed = 0.0
    private var toldAt: Double

    init(startedAt: Double) { toldAt = startedAt }

    /// Its place at a time (in seconds), at most nine tenths of the rest beyond where it was told.
    func place(at now: Double) -> Double {
        min(position + speed * max(0, now - toldAt), position + 0.9 * (1 - position))
    }

    /// The speed with which it reaches its end when the rest is over: faster when it is behind where it should be, slower when
    /// it is ahead, and never still.
    ///
    /// - Parameters:
    ///   - elapsed: since the job began, in seconds.
    ///   - rest: how long it is expected to go on.
    func speed(at now: Double, elapsed: Double, rest: Double) -> Double {
        let place = place(at: now)
        let target = elapsed > 0 ? elapsed / (elapsed + rest) : 0
        let gap = target - place
        let factor = gap > 0 ? 1 + Tuning.catchUp * gap : max(Tuning.slowest, 1 + Tuning.slowDown * gap)
        return factor * (1 - place) / max(rest, Tuning.shortestRest)
    }

    /// From now on it is drawn at this speed.
    mutating func tell(speed: Double, at now: Double) {
        position = place(at: now)
        toldAt = max(toldAt, now)
        self.speed = speed
    }
}
