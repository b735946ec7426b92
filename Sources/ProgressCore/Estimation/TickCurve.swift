import Glibc

/// Ticks are not time: the first may take long, later ones longer, and a stage may go on after its last. The curve says which
/// share of a stage's time has passed at which share of its ticks.
struct TickCurve {
    /// Eleven points: at no ticks (what passes before they begin to come), one tenth, …, all of them.
    static let points = 11

    /// Mean shares of time, and from how many jobs; empty when nothing was learned.
    private let shares: [Double]
    private let shareCount: Double
    /// Decayed squared errors of the rate, and from how many jobs; empty when nothing was learned.
    private let errors: [Double]
    private let errorCount: Double

    init(shares: [Double]?, errors: [Double]?) {
        shareCount = shares?.first ?? 0
        self.shares = shareCount > 0 ? shares?.dropFirst().map { min(max($0 / (shares?.first ?? 1), 0), 1) } ?? [] : []
        errorCount = errors?.first ?? 0
        self.errors = errors.map { Array($0.dropFirst()) } ?? []
    }

    /// The share of the stage's time that has passed at this share of its ticks; above 0 for anything above 0.
    func time(at share: Double) -> Double {
        guard share > 0 else { return 0 }
        let share = min(share, 1)
        guard !shares.isEmpty else { return max(share, 1e-4) }
        let place = share * Double(Self.points - 1)
        let index = min(Int(place), Self.points - 2)
        let part = place - Double(index)
        let learned = shares[index] * (1 - part) + shares[index + 1] * part
        return max((shareCount * learned + share) / (shareCount + 1), 1e-4)
    }

    /// Variance of the logarithm of a duration that was computed from the time of a tick.
    func rateVariance(at share: Double) -> Double {
        let place = min(max(share * Double(Self.points - 1), 1), Double(Self.points - 1))
        let index = min(Int(place), Self.points - 2)
        let part = place - Double(index)
        return max(variance(at: index) * (1 - part) + variance(at: index + 1) * part, Tuning.smallestRateVariance)
    }

    private func variance(at index: Int) -> Double {
        let share = Double(index) / Double(Self.points - 1)
        let prior = Tuning.rateVariance * (1 - 0.8 * share) / share
        return ((errors.isEmpty ? 0 : errors[index - 1]) + prior) / (errorCount + 1)
    }
}

/// When the tenths of a stage's ticks were reached, gathered while it runs in constant space.
struct TickRecord {
    /// Time at each tenth, interpolated between ticks.
    private var times = [Double](repeating: 0, count: TickCurve.points)
    /// The last tick at or before each tenth: share and time.
    private var lastShares = [Double](repeating: 0, count: TickCurve.points)
    private var lastTimes = [Double](repeating: 0, count: TickCurve.points)
    private var first = (share: 0.0, time: 0.0)
    private var last = (share: 0.0, time: 0.0)
    private(set) var count = 0
    private var reached = 1

    mutating func reset() {
        count = 0
        reached = 1
        last = (0, 0)
        // The rest is overwritten before it is read.
        times[0] = 0
    }

    /// - Parameter time: since the stage began, without stalls.
    mutating func note(share: Double, time: Double) {
        count += 1
        if count == 1 {
            first = (share, time)
            return
        }
        if count == 2 {
            // What passed before the ticks began to come at their pace.
            let pace = (time - first.time) / max(share - first.share, 1e-9)
            times[0] = max(0, first.time - pace * first.share)
            last = (0, times[0])
            advance(to: first.share, first.time)
        }
        advance(to: share, time)
    }

    private mutating func advance(to share: Double, _ time: Double) {
        while reached < TickCurve.points, Double(reached) / Double(TickCurve.points - 1) <= share + 1e-9 {
            let place = Double(reached) / Double(TickCurve.points - 1)
            times[reached] = last.time + (time - last.time) * (place - last.share) / max(share - last.share, 1e-9)
            let isHere = place >= share - 1e-9
            let tick = isHere ? (share, time) : last.share > 0 ? last : first
            (lastShares[reached], lastTimes[reached]) = tick
            reached += 1
        }
        last = (share, time)
    }

    /// The curve of a stage that took `duration`, nil when it had too few ticks to say.
    func shares(duration: Double) -> [Double]? {
        guard let (times, _, _) = closed(), duration > 0 else { return nil }
        return times.map { min(max($0 / duration, 0), 1) }
    }

    /// Squared errors of the rate rule at each tenth, by the curve that was known before.
    func errors(of curve: TickCurve, duration: Double) -> [Double]? {
        guard let (_, shares, times) = closed(), duration > 0 else { return nil }
        return (1..<TickCurve.points).map { index in
            let error = log(max(times[index], 1e-4) / curve.time(at: shares[index]) / duration)
            let clipped = min(max(error, -1.5), 1.5)
            return clipped * clipped
        }
    }

    /// The record with the tenths that no tick reached filled in by the last one.
    private func closed() -> (times: [Double], shares: [Double], lastTimes: [Double])? {
        let end = count == 1 ? first : last
        guard count > 0, end.share > 0.5 else { return nil }
        var copy = self
        if count == 1 { copy.advance(to: end.share, end.time) }
        for index in copy.reached..<max(TickCurve.points, copy.reached) {
            copy.times[index] = end.time
            copy.lastShares[index] = end.share
            copy.lastTimes[index] = end.time
        }
        return (copy.times, copy.lastShares, copy.lastTimes)
    }
}
