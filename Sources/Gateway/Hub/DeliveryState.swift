import ProgressCore

/// What one watcher has been given and what still waits for its socket: the decision about every event, without the socket.
///
/// Rules, in this order:
/// - nothing that is not newer than the last accepted event; after a `reset`, newer than where history stands now;
/// - one waiting state, the newest; a state older than a waiting milestone is dropped with it;
/// - milestones wait in order in a short queue; when it is full the watcher is caught up from Redis instead (`.resync`);
/// - lossy events go to a ready socket or nowhere;
/// - the terminal event (and `gone`) always passes, once; after it nothing does.
///
/// Invariants: `queue` is ascending in seq; `pending`, when present, is newer than all of `queue`; `delivered` ≤ `accepted`.
struct DeliveryState: Sendable {
    enum Action: Sendable, Equatable {
        /// Hand it to the socket now.
        case write
        /// It waits for the socket.
        case hold
        /// It replaced an older waiting state.
        case conflate
        /// Not newer than what was accepted, or after the end.
        case dropStale
        /// Lossy, and the socket is not ready.
        case dropLossy
        /// Too many milestones wait: forget them, and read them from Redis (after `delivered`) once the socket is ready.
        case resync
    }

    private enum Mode: Sendable {
        case open
        /// Between `.resync` and the next `restart`.
        case resyncing
        /// The last event is accepted: it waits, or is delivered when nothing waits.
        case ended
    }

    /// Seq of the newest event handed to the socket.
    private(set) var delivered: Int
    /// Seq of the newest event handed to the socket or waiting.
    private(set) var accepted: Int
    private var mode = Mode.open
    private var queue: [OutboundEvent] = []
    private var pending: OutboundEvent?
    /// The newest place in line that has not been shown; older than any phase that follows.
    private var place: OutboundEvent?

    /// - Parameter cursor: Seq the client says it has; 0 for none.
    init(cursor: Int = 0) {
        delivered = cursor
        accepted = cursor
    }

    /// Nothing waits, so an event may go straight to a ready socket.
    var isIdle: Bool { queue.isEmpty && pending == nil && place == nil }

    var isOpen: Bool { mode == .open }

    /// The last event was handed to the socket.
    var isDone: Bool { mode == .ended && isIdle }

    var needsResync: Bool { mode == .resyncing }

    /// Number of events that wait: at most the limit of the queue, one state and one place.
    var waitingCount: Int { queue.count + (pending == nil ? 0 : 1) + (place == nil ? 0 : 1) }

    /// The fast path of a whole run of events for a ready socket: takes it when nothing waits and all of it is new.
    /// - Parameters: smallest and largest seq in it; `last` is 0 when it has none.
    @inline(__always)
    mutating func takeRun(first: Int, last: Int) -> Bool {
        guard mode == .open, accepted < first, pending == nil, queue.isEmpty, place == nil else { return false }
        if last > 0 {
            accepted = last
            delivered = last
        }
        return true
    }

    /// Decides about one event.
    mutating func offer(_ event: OutboundEvent, isReady: Bool, queueLimit: Int) -> Action {
        guard mode == .open else { return .dropStale }
        let canWrite = isReady && isIdle
        switch event.kind {
        case .state, .milestone:
            guard event.seq > accepted else { return .dropStale }
            accepted = event.seq
            place = event.phase == .queued ? place : nil
            if canWrite {
                delivered = event.seq
                return .write
            }
            return event.kind == .state ? hold(state: event) : hold(milestone: event, limit: queueLimit)
        case .terminal, .gone:
            accepted = max(accepted, event.seq)
            place = nil
            if canWrite {
                mode = .ended
                note(event)
                return .write
            }
            let action = hold(milestone: event, limit: queueLimit)
            if action != .resync { mode = .ended }
            return action
        case .lossy:
            return canWrite ? .write : .dropLossy
        case .queue:
            if canWrite { return .write }
            defer { place = event }
            return place == nil ? .hold : .conflate
        case .reset:
            return reset(to: event, isReady: isReady, limit: queueLimit)
        case .control:
            return canWrite ? .write : hold(milestone: event, limit: queueLimit)
        }
    }

    /// The next waiting event for a socket that is ready; nil when none waits.
    mutating func next() -> OutboundEvent? {
        if !queue.isEmpty {
            let event = queue.removeFirst()
            note(event)
            return event
        }
        if let event = pending {
            pending = nil
            note(event)
            return event
        }
        defer { place = nil }
        return place
    }

    /// Begins again at `cursor`: what follows is a snapshot and its milestones, fresh from Redis.
    mutating func restart(at cursor: Int) {
        self = DeliveryState(cursor: cursor)
    }

    /// Forgets what waits: the truth is read again after `delivered`.
    mutating func forceResync() {
        guard mode == .open else { return }
        queue = []
        pending = nil
        place = nil
        accepted = delivered
        mode = .resyncing
    }

    private mutating func note(_ event: OutboundEvent) {
        switch event.kind {
        case .state, .milestone, .terminal: delivered = event.seq
        case .reset: delivered = event.seq - 1
        case .lossy, .queue, .gone, .control: break
        }
    }

    private mutating func hold(state event: OutboundEvent) -> Action {
        defer { pending = event }
        return pending == nil ? .hold : .conflate
    }

    private mutating func hold(milestone event: OutboundEvent, limit: Int) -> Action {
        let conflated = pending != nil && event.kind != .control
        if event.kind != .control { pending = nil }
        guard queue.count < limit else {
            forceResync()
            return .resync
        }
        queue.append(event)
        return conflated ? .conflate : .hold
    }

    /// What waits belongs to a history that no longer is.
    private mutating func reset(to event: OutboundEvent, isReady: Bool, limit: Int) -> Action {
        queue = []
        pending = nil
        place = nil
        accepted = event.seq - 1
        if isReady {
            delivered = event.seq - 1
            return .write
        }
        return hold(milestone: event, limit: limit)
    }
}
