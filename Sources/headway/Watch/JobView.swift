import ProgressCore

/// What a person who watches one job sees of it: the newest state, and the bar as it is drawn between two events.
///
/// Times are offsets on one monotonic clock of the caller.
struct JobView: Sendable {
    enum Change: Sendable, Equatable {
        case none
        case state
        case milestone
    }

    enum Link: Sendable, Equatable {
        case connecting
        case live
        case polling
        case lost
    }

    let job: String
    /// Names of the pipeline's stages in order of work; stages that only the events name are added as they come.
    private(set) var stages: [String]
    private(set) var event: JobEvent?
    /// The newest event that said where it waits and for how long, and when that came; nil when it does not wait.
    private(set) var place: (event: JobEvent, at: Duration)?
    private(set) var isDegraded = false
    private(set) var end: JobEnd?
    var link: Link = .connecting

    private var order = EventOrder()
    private var receivedAt: Duration = .zero
    private var drawnFloor = 0.0

    init(job: String, stages: [String] = []) {
        self.job = job
        self.stages = stages
    }

    /// Takes an event at `now` and says how much it changed.
    mutating func apply(_ event: JobEvent, at now: Duration) -> Change {
        switch event.type {
        case "connected": isDegraded = false
        case "degraded":
            isDegraded = true
            return .state
        case "log", "preview", "notice": return .none
        case "queue":
            guard end == nil, self.event.map({ $0.phase == .queued }) ?? true else { return .none }
            let before = place?.event
            place = (event, now)
            let isNews =
                event.queueAhead != before?.queueAhead || event.reason != before?.reason || event.ownAhead != before?.ownAhead
                || event.dueAt != before?.dueAt || (event.etaMs == nil) != (before?.etaMs == nil)
            return isNews ? .milestone : .state
        case "gone":
            end = end ?? .absent
            return .milestone
        default: return applyState(event, at: now)
        }
        return .none
    }

    private mutating func applyState(_ event: JobEvent, at now: Duration) -> Change {
        // A state that was asked for says it too, also when nothing else is new.
        let tellsPlace = event.phase == .queued && event.tellsPlace && end == nil
        if tellsPlace { place = (event, now) }
        guard end == nil, order.admits(event) else { return tellsPlace ? .state : .none }
        isDegraded = false
        let previous = self.event
        if event.type == "reset" || event.attempt != previous?.attempt { drawnFloor = 0 }
        guard event.phase != nil else { return event.isMilestone ? .milestone : .none }
        // The bar may have been drawn ahead of this event; it waits there rather than step back.
        self.event = event
        receivedAt = now
        if event.phase != .queued { place = nil }
        if let stage = event.stage, !stages.contains(stage) { stages.append(stage) }
        switch event.phase {
        case .complete: end = .complete
        case .failed: end = .failed
        case .cancelled: end = .cancelled
        default: break
        }
        let isNews = event.phase != previous?.phase || event.stage != previous?.stage || event.attempt != previous?.attempt
        return event.isMilestone || isNews ? .milestone : .state
    }

    mutating func close(_ end: JobEnd) {
        self.end = self.end ?? end
    }

    /// Percent to draw: moves on between events with the announced speed, never further than nine tenths of what is left,
    /// never backwards within an attempt.
    mutating func drawnPercent(at now: Duration) -> Double {
        guard let event else { return 0 }
        let percent = min(max(event.percent ?? 0, 0), 100)
        if end == .complete { return 100 }
        var drawn = percent
        if end == nil, !isDegraded, let speed = event.percentPerS, speed > 0 {
            let seconds = max(0, Double(DurationText.milliseconds(now - receivedAt)) / 1000)
            drawn = min(percent + speed * seconds, percent + 0.9 * (100 - percent))
        }
        drawnFloor = max(drawnFloor, drawn)
        return drawnFloor
    }

    /// Milliseconds since the newest event arrived; what an estimate has aged.
    func ageMs(at now: Duration) -> Int { max(0, DurationText.milliseconds(now - receivedAt)) }
}

/// Lets each change through once and in order: the client's half of "snapshot, then only newer seq".
struct EventOrder: Sendable {
    private(set) var seq = 0

    /// True when the event is news; after a `reset` lower numbers are news again, and an end always passes.
    mutating func admits(_ event: JobEvent) -> Bool {
        guard let new = event.seq else {
            if event.type == "reset" { seq = 0 }
            return true
        }
        if event.type == "reset" || new > seq || event.isEnd {
            seq = new
            return true
        }
        return false
    }
}
