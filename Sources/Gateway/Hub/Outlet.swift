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
    private let directSend: DirectSend?
    /// The only bytes of this turn so far.
    private var first: ByteBuffer?
    /// The channel may hold bytes: all others must go behind them.
    private var isChannelBusy = false
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
        self.directSend = shard.limits.sendsDirectly ? DirectSend(context.channel) : nil
        self.isWritable = context.channel.isWritable
    }

    /// Takes events: neither closed nor about to be.
    var isOpen: Bool { context != nil && !isClosing }

    // MARK: Writing

    /// Queues bytes; they leave with the shard's next flush.
    ///
    /// The first buffer of a turn is only remembered: mostly it is the only one and goes straight to the socket. With a second
    /// one both go to the channel, which joins them into one write.
    @inline(__always)
    func write(_ bytes: ByteBuffer) {
        guard let context, !isClosing else { return }
        bytesWritten &+= bytes.readableBytes
        if first == nil, !isChannelBusy, directSend != nil {
            first = bytes
        } else {
            writeToChannel(bytes, context)
        }
        if !isDirty {
            isDirty = true
            shard.markDirty(self)
        }
    }

    /// One buffer for a connection that waits for nothing else in this turn: straight to the socket, without the second pass of a
    /// flush. This is the path of nearly every delivery, so it touches nothing but this object.
    @inline(__always)
    func deliver(_ bytes: borrowing ByteBuffer) {
        guard first == nil, !isChannelBusy, watchers.count == 1, !isClosing, transport != .multiplexedEventStream, let context else {
            write(copy bytes)
            return
        }
        bytesWritten &+= bytes.readableBytes
        if !sendDirectly(bytes, context), !isDirty {
            isDirty = true
            shard.markDirty(self)
        }
    }

    /// True when the kernel took all of it; the rest is left to the channel, to be flushed.
    @inline(__always)
    private func sendDirectly(_ bytes: borrowing ByteBuffer, _ context: ChannelHandlerContext) -> Bool {
        // The descriptor is the connection's as long as there is a context: NIO closes it and, before anything else of ours
        // runs, fires `channelInactive`, which takes the context away.
        assert(context.channel.isActive)
        let sent = directSend?.send(bytes) ?? 0
        if sent == bytes.readableBytes { return true }
        var rest = copy bytes
        rest.moveReaderIndex(forwardBy: sent)
        writeToChannel(rest, context)
        return false
    }

    private func writeToChannel(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        if let first {
            self.first = nil
            context.write(NIOAny(first), promise: nil)
        }
        isChannelBusy = true
        context.write(NIOAny(bytes), promise: nil)
    }

    /// One event made for this connection alone.
    func send(control body: ByteBuffer) {
        write(OutboundEvent(kind: .control, seq: 0, phase: .queued, body: body).bytes(for: transport))
    }

    func flush() {
        isDirty = false
        guard let context else { return }
        if transport == .multiplexedEventStream, let block = session?.cursorBlock() {
            bytesWritten &+= block.readableBytes
            writeToChannel(block, context)
        }
        if let bytes = first {
            first = nil
            if sendDirectly(bytes, context) { return }
        }
        context.flush()
        // Only what the kernel did not take keeps the channel busy; it is looked at again when there is something to send.
        isChannelBusy = bufferedBytes > 0
    }

    /// Bytes the channel holds, because the socket does not take them.
    private var bufferedBytes: Int {
        guard let options = context?.channel.syncOptions else { return 0 }
        return (try? options.getOption(.bufferedWritableBytes)) ?? 0
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
        if let first {
            self.first = nil
            context.write(NIOAny(first), promise: nil)
        }
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
        if isWritable { isChannelBusy = bufferedBytes > 0 }
        if isWritable, hasWaiting { shard.drain(self) }
    }

    /// The handler is leaving the pipeline: nothing may be written any more.
    func detach() {
        guard context != nil else { return }
        context = nil
        session = nil
        first = nil
        isDirty = false
        isWritable = false
        waiting = []
        shard.remove(self)
        watchers = []
    }

    // MARK: Write deadline

    /// False when the socket took nothing for the whole deadline while bytes wait.
    func isMakingProgress(now: NIODeadline, deadline: TimeAmount) -> Bool {
        let pending = bufferedBytes
        let accepted = bytesWritten &- pending
        if pending == 0 || accepted != bytesAccepted {
            bytesAccepted = accepted
            acceptedAt = now
            return true
        }
        return now - acceptedAt < deadline
    }
}
