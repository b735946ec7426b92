import JobStore
import NIOCore
import ProgressCore

/// One client's wish to follow one job.
struct WatchRequest: Sendable, Hashable {
    let job: JobID
    /// Seq of the newest event the client has; nil or 0: none.
    let since: Int?
    /// The client has this job's end already (`Last-Event-ID: end`).
    let isEnd: Bool

    init(job: JobID, since: Int? = nil, isEnd: Bool = false) {
        self.job = job
        self.since = since
        self.isEnd = isEnd
    }
}

/// How a watch came to its end.
enum WatchEnd: Sendable, Hashable {
    case terminal
    /// It was there and is not any more.
    case gone
    /// It did not appear, or it belongs to somebody else: the client cannot tell which.
    case refused(WatchProblem)
}

/// One watcher: a connection's interest in one job.
///
/// Safety: `job`, `outlet`, `cursor` and `ordinal` never change. Everything else belongs to the outlet's event loop; the intake
/// passes watchers around without looking inside.
final class Watcher: @unchecked Sendable {
    let job: JobID
    let outlet: Outlet
    /// What the client said it has when it began to watch.
    let cursor: Int?
    /// Position in the request, for the cursor of a multiplexed stream.
    let ordinal: Int

    var state: DeliveryState
    /// Where it stands, while it is open.
    var room: ShardRoom?
    var slot = 0
    /// In its outlet's line for the socket.
    var isWaiting = false
    /// It left, or it ended: whatever still comes for it is ignored.
    var isDetached = false

    init(request: WatchRequest, outlet: Outlet, ordinal: Int) {
        self.job = request.job
        self.outlet = outlet
        self.ordinal = ordinal
        let cursor = request.since.flatMap { $0 > 0 ? $0 : nil }
        self.cursor = cursor
        self.state = DeliveryState(cursor: cursor ?? 0)
    }
}

/// What a connection's handler wants to know, all on its own event loop.
protocol OutletSession: AnyObject {
    /// The watcher's last event was handed to the socket, or (`refused`) there is none.
    func watchEnded(_ watcher: Watcher, _ end: WatchEnd)
    /// The cursor of a multiplexed stream, when it has moved; asked before each flush.
    func cursorBlock() -> ByteBuffer?
    /// Once per heartbeat tick: say something so that the peer and all proxies see life, or close.
    func heartbeat(now: NIODeadline)
    /// Tell the client when to come back, and close.
    func drain(reconnectAfterMs: Int)
}

/// The outbound side of one connection: every byte to the client goes through here.
///
/// Safety: all state belongs to `shard.eventLoop`; other loops only pass the reference on.
final class Outlet: @unchecked Sendable {
    let transport: Transport
    let principal: Principal
    let connectionID: String
    let shard: HubShard
    private(set) var session: (any OutletSession)?
    private var context: ChannelHandlerContext?

    /// Mirrors the channel's writability: a plain field, read once per delivery.
    private(set) var isWritable = true
    var isDirty = false
    private var isClosing = false
    /// Watchers with something that waits for the socket, first come first served.
    private var waiting: [Watcher] = []
    private(set) var watchers: [Watcher] = []

    /// Place in the shard's heartbeat wheel.
    var wheelSlot = 0
    var wheelIndex = 0
    private var bytesWritten = 0
    private var bytesAccepted = 0
    private var acceptedAt: NIODeadline

    init(
        transport: Transport,
        principal: Principal,
        connectionID: String,
        shard: HubShard,
        session: any OutletSession,
        context: ChannelHandlerContext
    ) {
        self.transport = transport
        self.principal = principal
        self.connectionID = connectionID
        self.shard = shard
        self.session = session
        self.context = context
        self.acceptedAt = shard.eventLoop.now
        self.isWritable = context.channel.isWritable
    }

    /// Takes events: neither closed nor about to be.
    var isOpen: Bool { context != nil && !isClosing }

    // MARK: Writing

    /// Queues bytes; they leave with the shard's next flush.
    @inline(__always)
    func write(_ bytes: ByteBuffer) {
        guard let context, !isClosing else { return }
        bytesWritten &+= bytes.readableBytes
        context.write(NIOAny(bytes), promise: nil)
        if !isDirty {
            isDirty = true
            shard.markDirty(self)
        }
    }

    /// One event made for this connection alone.
    func send(control body: ByteBuffer) {
        write(OutboundEvent(kind: .control, seq: 0, phase: .queued, body: body).bytes(for: transport))
    }

    func flush() {
        isDirty = false
        if transport == .multiplexedEventStream, let block = session?.cursorBlock() {
            bytesWritten &+= block.readableBytes
            context?.write(NIOAny(block), promise: nil)
        }
        context?.flush()
    }

    /// Closes once everything written so far has left.
    func closeAfterFlush() {
        guard let context, !isClosing else { return }
        isClosing = true
        isDirty = false
        let promise = context.eventLoop.makePromise(of: Void.self)
        // Safety: the future completes on this connection's event loop.
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        promise.futureResult.whenComplete { _ in bound.value.close(promise: nil) }
        context.writeAndFlush(NIOAny(ByteBuffer()), promise: promise)
    }

    func close() { context?.close(promise: nil) }

    // MARK: Watchers

    func add(_ watcher: Watcher) { watchers.append(watcher) }

    func remove(_ watcher: Watcher) {
        if let index = watchers.firstIndex(where: { $0 === watcher }) { watchers.remove(at: index) }
    }

    func watcher(of job: JobID) -> Watcher? { watchers.first { $0.job == job } }

    /// The watcher has something that must wait for the socket.
    func wait(_ watcher: Watcher) {
        guard !watcher.isWaiting else { return }
        watcher.isWaiting = true
        waiting.append(watcher)
    }

    var hasWaiting: Bool { !waiting.isEmpty }

    /// Takes the first in line.
    func nextWaiting() -> Watcher? {
        while let watcher = waiting.first {
            if !watcher.isDetached { return watcher }
            dropFirstWaiting()
        }
        return nil
    }

    func dropFirstWaiting() { waiting.removeFirst().isWaiting = false }

    // MARK: Channel events

    func writabilityChanged() {
        isWritable = context?.channel.isWritable ?? false
        if isWritable, hasWaiting { shard.drain(self) }
    }

    /// The handler is leaving the pipeline: nothing may be written any more.
    func detach() {
        guard context != nil else { return }
        context = nil
        session = nil
        isWritable = false
        waiting = []
        shard.remove(self)
        watchers = []
    }

    // MARK: Write deadline

    /// False when the socket took nothing for the whole deadline while bytes wait.
    func isMakingProgress(now: NIODeadline, deadline: TimeAmount) -> Bool {
        let pending = (try? context?.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
        let accepted = bytesWritten &- pending
        if pending == 0 || accepted != bytesAccepted {
            bytesAccepted = accepted
            acceptedAt = now
            return true
        }
        return now - acceptedAt < deadline
    }
}
