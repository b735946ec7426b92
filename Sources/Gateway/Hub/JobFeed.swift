import NIOCore
import ProgressCore

/// The order of one job's events as they come in: what may go on, what waits for a gap to be filled, what is old.
///
/// Pub/sub is a hint and the job's hash the truth. Events carry contiguous numbers, so a missing one is seen at the next;
/// events behind a gap are held until head and milestones were read. A read also finds that history went back (a failover).
///
/// A read has two steps, the second only when needed: the head, then the milestones. The list holds every milestone up to the
/// highest number known when it was asked for (`sure`), because a script appends before it publishes.
struct JobFeed: Sendable {
    /// What to do with an event from the channel.
    enum Receipt: Sendable, Equatable {
        /// The next in line: pass it on.
        case forward
        /// Kept; the missing events must be read.
        case hold
        /// Not newer than what is known, and different: history may have gone back, read the truth.
        case suspicious
        /// A copy of what is known, or of no use yet.
        case ignore
    }

    /// What the head said.
    enum HeadVerdict: Sendable, Equatable {
        /// No such job, and there was none before.
        case absent
        /// The job was there and is not any more.
        case gone
        /// First knowledge of the job.
        case adopted
        case unchanged
        /// History went back to `newest`.
        case reset
        /// Newer than what was passed on: the milestones after this seq are needed.
        case behind(after: Int)
        /// Events overtook the read: ask again.
        case unclear
    }

    /// The newest event passed on, or the head read first; nil while nothing is known or the job is absent.
    private(set) var newest: OutboundEvent?
    /// Waits for a gap to be filled.
    private(set) var isBroken = false
    private var held: [OutboundEvent] = []
    private var pendingHead: OutboundEvent?
    private var sure = 0

    var seq: Int { newest?.seq ?? 0 }
    var heldCount: Int { held.count }
    /// Something was seen of a job of which nothing is known.
    var hasUnexplained: Bool { newest == nil && !held.isEmpty }

    // MARK: Channel

    mutating func receive(_ event: OutboundEvent, heldLimit: Int) -> Receipt {
        guard event.isOrdered else { return newest != nil && !isBroken ? .forward : .ignore }
        guard let known = newest, !isBroken else {
            hold(event, limit: heldLimit)
            return .hold
        }
        if event.seq == known.seq + 1 {
            newest = event
            return .forward
        }
        if event.seq <= known.seq { return event.seq == known.seq && event.body == known.body ? .ignore : .suspicious }
        isBroken = true
        hold(event, limit: heldLimit)
        return .hold
    }

    private mutating func hold(_ event: OutboundEvent, limit: Int) {
        // What is not kept is a gap again once the read is done, and read then.
        if held.count >= limit { held.removeAll() }
        held.append(event)
    }

    // MARK: Reading

    /// - Parameters:
    ///   - head: The job's head as an event, nil when absent.
    ///   - issuedAt: `seq` when the read was sent.
    ///   - isWatched: Somebody has been given `newest`; else a newer head may simply replace it.
    mutating func read(head: OutboundEvent?, issuedAt: Int, isWatched: Bool) -> HeadVerdict {
        guard let head else { return readAbsent(issuedAt: issuedAt) }
        guard let known = newest else {
            adopt(head)
            return .adopted
        }
        if head.seq < issuedAt || (head.seq == known.seq && head.body != known.body) {
            restart(at: head)
            return .reset
        }
        if head.seq < known.seq { return .unclear }
        let newestHeld = held.reduce(0) { max($0, $1.seq) }
        if head.seq == known.seq && newestHeld <= known.seq {
            isBroken = false
            held.removeAll()
            return .unchanged
        }
        guard isWatched else {
            adopt(head)
            return .adopted
        }
        isBroken = true
        pendingHead = head
        sure = max(head.seq, newestHeld)
        return .behind(after: known.seq)
    }

    private mutating func readAbsent(issuedAt: Int) -> HeadVerdict {
        guard newest != nil else {
            let wasSeen = !held.isEmpty
            held.removeAll()
            return wasSeen ? .unclear : .absent
        }
        guard seq == issuedAt, held.isEmpty else {
            // Created again, or an event overtook the answer.
            held.removeAll()
            return .unclear
        }
        self = JobFeed()
        return .gone
    }

    /// Takes the newest of head and held events as known.
    private mutating func adopt(_ head: OutboundEvent) {
        let best = held.filter { $0.seq > head.seq }.max { $0.seq < $1.seq }
        restart(at: best ?? head)
    }

    private mutating func restart(at event: OutboundEvent) {
        newest = event
        isBroken = false
        held.removeAll()
        pendingHead = nil
        sure = 0
    }

    /// Fills the gap that `.behind` named.
    /// - Parameter milestones: All of the job's milestones after that seq, in order.
    /// - Returns: `forward`, in order, ending with the new `newest`; and `again`, to be received like fresh events.
    mutating func fill(milestones: [OutboundEvent]) -> (forward: [OutboundEvent], again: [OutboundEvent]) {
        guard let known = newest, let head = pendingHead else { return ([], []) }
        var bySeq: [Int: OutboundEvent] = [:]
        for event in milestones where event.seq > known.seq && event.seq <= sure { bySeq[event.seq] = event }
        for event in held where event.kind != .state && event.seq > known.seq && event.seq <= sure { bySeq[event.seq] = event }
        if bySeq[sure] == nil { bySeq[sure] = head.seq == sure ? head : held.first { $0.seq == sure } }
        let forward = bySeq.values.sorted { $0.seq < $1.seq }
        let again = held.filter { $0.seq > sure }.sorted { $0.seq < $1.seq }
        restart(at: forward.last ?? known)
        return (forward, again)
    }
}
