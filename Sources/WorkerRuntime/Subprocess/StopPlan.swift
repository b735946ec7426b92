/// When a process group is signalled, killed and let go. A pure value: events and the time come in, one action comes out.
///
/// SIGTERM goes to the whole group; after the grace SIGKILL. When the leader has gone, its descendants may still hold the
/// pipes: after an end of its own they get a short time to write their last lines, after a stop the rest of the grace. Then
/// the group is killed in any case, before the leader is reaped, while its id cannot yet belong to anybody else.
struct StopPlan {
    enum Action: Hashable {
        /// SIGTERM to the group.
        case terminate
        /// SIGKILL to the group.
        case kill
        /// SIGKILL to the group, reap the leader, be done.
        case finish
        /// The leader does not die: be done without reaping it.
        case abandon
    }

    let graceMs: Int
    private var stopAskedAt: Int?
    private var hasTerminated = false
    private var killedAt: Int?
    private var exitedAt: Int?

    init(graceMs: Int) {
        self.graceMs = graceMs
    }

    var wasStopped: Bool { stopAskedAt != nil }

    mutating func askStop(atMs now: Int) { stopAskedAt = stopAskedAt ?? now }
    mutating func leaderExited(atMs now: Int) { exitedAt = exitedAt ?? now }

    /// The next thing to do, or nil; to be called until it gives nil.
    mutating func next(atMs now: Int, areAllPipesClosed: Bool) -> Action? {
        if stopAskedAt != nil, !hasTerminated {
            hasTerminated = true
            return .terminate
        }
        if exitedAt != nil { return areAllPipesClosed || now >= deadline ?? now ? .finish : nil }
        if let stopAskedAt, killedAt == nil, now >= stopAskedAt + graceMs {
            killedAt = now
            return .kill
        }
        if let killedAt, now >= killedAt + WorkerLimits.unkillableMs { return .abandon }
        return nil
    }

    /// When to look again at the latest; nil: when something happens.
    var deadline: Int? {
        if let exitedAt {
            guard let stopAskedAt, killedAt == nil else { return exitedAt + WorkerLimits.drainMs }
            return stopAskedAt + graceMs
        }
        if let killedAt { return killedAt + WorkerLimits.unkillableMs }
        return stopAskedAt.map { $0 + graceMs }
    }
}
