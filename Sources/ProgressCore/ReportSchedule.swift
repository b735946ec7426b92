/// How often the progress of a job is written.
public struct ReportPolicy: Sendable, Hashable {
    /// Most states per second; phase and stage changes go at once and have a bound of their own.
    public var maxPerSecond: Double
    /// When only the bar moves and clients would draw it wrong: at most this often.
    public var barIntervalMs: Int
    /// When clients draw the bar right without help: only this often.
    public var quietIntervalMs: Int
    /// How far, in points of percent, a drawn bar may be off.
    public var tolerance: Double

    /// - Parameter maxPerSecond: 0.01…100; default 4.
    public init(maxPerSecond: Double = 4, barIntervalMs: Int = 1000, quietIntervalMs: Int = 10_000, tolerance: Double = 0.5) {
        let isUsable = maxPerSecond.isFinite && maxPerSecond > 0
        self.maxPerSecond = isUsable ? min(max(maxPerSecond, 0.01), ProgressLimits.reportsPerSecond) : 4
        self.barIntervalMs = max(barIntervalMs, 1)
        self.quietIntervalMs = max(quietIntervalMs, self.barIntervalMs)
        self.tolerance = max(tolerance, 0)
    }

    /// 1000 / `maxPerSecond`, upwards.
    public var minimumGapMs: Int {
        let whole = Int(1000 / maxPerSecond)
        return Double(whole) * maxPerSecond < 1000 ? whole + 1 : whole
    }
}

/// Decides when the newest state is worth a write. Holds only what was sent last; the caller holds the newest state, so
/// that the newest always wins.
public struct ReportSchedule: Sendable {
    public enum Decision: Sendable, Hashable {
        case sendNow
        /// Ask again with the state of that time, or earlier when something happens.
        case wait(untilMs: Int)
        /// Nothing differs from what was sent.
        case nothing
    }

    public let policy: ReportPolicy
    private var last: (state: ProgressState, atMs: Int)?
    /// How far, in points, the bar as it is drawn has run away from the one that would be told, and until when that is counted.
    private var drift = 0.0
    private var countedAtMs = 0
    /// Times of the last phase and stage changes, a ring.
    private var milestones: [Int] = []
    private var oldest = 0

    public init(policy: ReportPolicy = ReportPolicy()) {
        self.policy = policy
    }

    /// What to do with `state` now.
    public mutating func decide(_ state: ProgressState, atMs now: Int) -> Decision {
        guard let last else { return .sendNow }
        let passed = Double(max(0, now - countedAtMs)) / 1000
        drift += ((state.percentPerSecond ?? 0) - (last.state.percentPerSecond ?? 0)) * passed
        countedAtMs = max(countedAtMs, now)
        let due: Int
        if state.phase != last.state.phase || state.stage != last.state.stage {
            let isFull = milestones.count == ProgressLimits.milestonesPerSecond
            due = isFull ? milestones[oldest] + 1000 : now
        } else if isMoreThanTheBar(state, last.state) {
            due = last.atMs + policy.minimumGapMs
        } else if state == last.state, state.percentPerSecond ?? 0 == 0 {
            return .nothing
        } else {
            let isOff = isDrawnWrong(state, last: last.state, sinceMs: now - last.atMs)
            let quiet = last.atMs + max(policy.quietIntervalMs, policy.minimumGapMs)
            let soon = last.atMs + max(policy.barIntervalMs, policy.minimumGapMs)
            // Right now; in a second it may be off, so look again then.
            if !isOff, now < quiet { return .wait(untilMs: min(quiet, max(soon, now + policy.barIntervalMs))) }
            due = isOff ? soon : quiet
        }
        return now >= due ? .sendNow : .wait(untilMs: due)
    }

    /// Whether `state` holds words of the generator that were not sent: where the bar stands alone is none.
    public func isNews(_ state: ProgressState) -> Bool {
        let last = last?.state
        return state.step != last?.step || state.steps != last?.steps || state.item != last?.item || state.items != last?.items
            || state.message != last?.message || (last != nil && (state.phase != last?.phase || state.stage != last?.stage))
    }

    /// Records that `state` was written.
    public mutating func sent(_ state: ProgressState, atMs now: Int) {
        if last.map({ $0.state.phase != state.phase || $0.state.stage != state.stage }) ?? true {
            if milestones.count < ProgressLimits.milestonesPerSecond {
                milestones.append(now)
            } else {
                milestones[oldest] = now
                oldest = (oldest + 1) % milestones.count
            }
        }
        last = (state, now)
        drift = 0
        countedAtMs = now
    }

    /// Where a client draws the bar, `sinceMs` after it received `state`.
    public static func drawnPercent(_ state: ProgressState, sinceMs: Int) -> Double {
        let speed = state.percentPerSecond ?? 0
        return min(state.percent + speed * Double(max(sinceMs, 0)) / 1000, state.percent + 0.9 * (100 - state.percent))
    }

    private func isMoreThanTheBar(_ new: ProgressState, _ old: ProgressState) -> Bool {
        new.step != old.step || new.steps != old.steps || new.item != old.item || new.items != old.items
            || new.message != old.message || new.isStalled != old.isStalled || new.isEstimating != old.isEstimating
    }

    private func isDrawnWrong(_ state: ProgressState, last: ProgressState, sinceMs: Int) -> Bool {
        // Nobody extrapolates the percent of a stage: a whole point of it is worth a look.
        if abs((state.stagePercent ?? 0) - (last.stagePercent ?? 0)) >= 1 { return true }
        if abs(drift) > policy.tolerance { return true }
        return abs(Self.drawnPercent(last, sinceMs: sinceMs) - state.percent) > policy.tolerance
    }
}
