import JobStore
import Synchronization

/// Why the work on a job is to stop before its own end.
enum StopReason: Int, Comparable {
    /// This worker shuts down: the job is handed back.
    case shutdown
    /// It ran longer than it may.
    case timeout
    /// It made no progress for longer than it may.
    case stalled
    /// Its files are more than it may have.
    case quotaExceeded
    /// Somebody cancelled it.
    case cancelled
    /// The job is not ours any more: nothing may be written.
    case leaseLost

    static func < (a: StopReason, b: StopReason) -> Bool { a.rawValue < b.rawValue }
}

/// The order to stop one job; the weightiest reason wins.
final class StopOrder: Sendable {
    private let state = Mutex<(reason: StopReason?, act: (@Sendable () -> Void)?)>((nil, nil))

    var reason: StopReason? { state.withLock { $0.reason } }

    /// Calls `act` when the order is given, at once if it was given already.
    func whenGiven(_ act: @escaping @Sendable () -> Void) {
        let isGiven = state.withLock { state in
            state.act = act
            return state.reason != nil
        }
        if isGiven { act() }
    }

    func give(_ reason: StopReason) {
        let act = state.withLock { state in
            state.reason = max(state.reason ?? reason, reason)
            return state.act
        }
        act?()
    }
}

/// How the work on a job ended, before anything was written about it.
enum WorkOutcome: Hashable {
    /// With the composed result.
    case done(resultJSON: String)
    case failed(BackendError)
    /// By an order to stop, or with the whole worker.
    case stopped
}

/// How this worker is done with a job.
enum JobEnd: String, CaseIterable {
    case complete
    case failed
    case cancelled
    case released
    case lost
}

/// What to write at the end of a job.
enum EndAction: Hashable {
    case complete(resultJSON: String)
    case acknowledgeCancel
    case fail(BackendError)
    case release
    /// The job is not ours any more.
    case nothing

    /// The whole decision: what happened, and which order to stop had been given.
    static func decide(_ outcome: WorkOutcome, stop: StopReason?, limits: RunLimits) -> EndAction {
        switch (outcome, stop) {
        case (_, .leaseLost): .nothing
        // It was finished, delivered and whole before the order took effect.
        case (.done(let result), _): .complete(resultJSON: result)
        case (_, .cancelled): .acknowledgeCancel
        case (.failed(let error), let stop): stop.flatMap(limits.failure(for:)).map(EndAction.fail) ?? (error.didNotStart ? .release : .fail(error))
        case (.stopped, let stop): stop.flatMap(limits.failure(for:)).map(EndAction.fail) ?? .release
        }
    }
}
