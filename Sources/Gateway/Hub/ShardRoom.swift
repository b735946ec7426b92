import NIOCore
import ProgressCore

/// Something for the watchers of one job on one event loop, in the order the intake decided.
enum RoomItem: Sendable {
    case event(OutboundEvent)
    /// A new watcher and what it is owed first.
    case open(Watcher, Opening)
    /// A watcher that will not be served.
    case refuse(Watcher, WatchEnd)
    /// Too much happened at once: every watcher is caught up from Redis.
    case resync
}

/// What a watcher gets before it joins the live events.
struct Opening: Sendable {
    /// Where a watcher without a cursor begins; nil: it goes on from what it has.
    var begin: Int?
    /// Milestones after its cursor, in order.
    var replay: [OutboundEvent] = []
    let snapshot: OutboundEvent
    /// Its cursor is ahead of history.
    var reset: OutboundEvent?
    /// The newest place in line, when the job waits.
    var place: OutboundEvent?
}

/// The watchers of one job on one event loop.
///
/// Safety: the intake creates it and passes it on; all state belongs to the shard's event loop.
final class ShardRoom: @unchecked Sendable {
    let job: JobID
    private(set) var watchers: ContiguousArray<Watcher> = []
    /// Items not yet begun, and how many of them are done.
    var backlog: ContiguousArray<RoomItem> = []
    var done = 0
    /// The run being given out, and the next watcher to get it.
    var run: Run?
    var cursor = 0
    var isScheduled = false

    init(job: JobID) { self.job = job }

    func add(_ watcher: Watcher) {
        watcher.room = self
        watcher.slot = watchers.count
        watchers.append(watcher)
    }

    /// Constant time, and right in the middle of a run: who was served stays before `cursor`, who was not stays behind it.
    func remove(_ watcher: Watcher) {
        guard watcher.room === self else { return }
        watcher.room = nil
        var hole = watcher.slot
        if hole < cursor {
            cursor -= 1
            move(from: cursor, to: hole)
            hole = cursor
        }
        move(from: watchers.count - 1, to: hole)
        watchers.removeLast()
    }

    private func move(from source: Int, to target: Int) {
        guard source != target else { return }
        watchers[target] = watchers[source]
        watchers[target].slot = target
    }

    /// Takes the next item or run of items off the backlog.
    func takeRun(limit: Int) -> Run? {
        guard done < backlog.count, case .event(let first) = backlog[done] else { return nil }
        done += 1
        var run = Run(first)
        while run.isPlain, run.bytes < limit, done < backlog.count, case .event(let event) = backlog[done], Run.isPlain(event) {
            run.append(event)
            done += 1
        }
        return run
    }

    func forgetDone() {
        guard done == backlog.count else { return }
        backlog.removeAll(keepingCapacity: backlog.capacity <= 8)
        done = 0
    }
}

/// Consecutive events of one job that go out as one write to everybody who is up to date.
struct Run {
    private(set) var events: [OutboundEvent]
    /// Smallest and largest seq of the ordered events in it.
    private(set) var first: Int
    private(set) var last: Int
    private(set) var bytes: Int
    /// May be handed to an idle, ready watcher without asking event by event.
    let isPlain: Bool
    private var joined: (ByteBuffer?, ByteBuffer?, ByteBuffer?) = (nil, nil, nil)

    init(_ event: OutboundEvent) {
        events = [event]
        isPlain = Self.isPlain(event)
        bytes = event.body.readableBytes
        first = event.isOrdered ? event.seq : .max
        last = event.isOrdered ? event.seq : 0
    }

    static func isPlain(_ event: OutboundEvent) -> Bool { event.kind == .state || event.kind == .milestone || event.kind == .lossy }

    mutating func append(_ event: OutboundEvent) {
        events.append(event)
        bytes += event.body.readableBytes
        if event.isOrdered {
            first = min(first, event.seq)
            last = max(last, event.seq)
        }
    }

    /// All of it for one transport: joined once, then shared.
    mutating func bytes(for transport: Transport) -> ByteBuffer {
        if events.count == 1 { return events[0].bytes(for: transport) }
        switch transport {
        case .webSocket: return Self.join(events, transport, &joined.0)
        case .eventStream: return Self.join(events, transport, &joined.1)
        case .multiplexedEventStream: return Self.join(events, transport, &joined.2)
        }
    }

    private static func join(_ events: [OutboundEvent], _ transport: Transport, _ cache: inout ByteBuffer?) -> ByteBuffer {
        if let cache { return cache }
        let parts = events.map { $0.bytes(for: transport) }
        var whole = ByteBufferAllocator().buffer(capacity: parts.reduce(0) { $0 + $1.readableBytes })
        for part in parts { whole.writeImmutableBuffer(part) }
        cache = whole
        return whole
    }
}
