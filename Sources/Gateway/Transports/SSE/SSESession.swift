import JobStore
import NIOCore
import ProgressCore

/// One event stream, after it was taken over from the HTTP handlers: raw bytes out, nothing in.
///
/// Writes the response head itself, then `connected`, then what its watchers are owed. When every job has ended it closes; the
/// cursor `end` makes a reconnect harmless (answered 204 before it gets here). Overload and drain are answered 200 with
/// `retry:`, because a native `EventSource` gives up for good on an error status.
final class SSESession: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let hub: Hub
    private let principal: Principal
    private let requests: [WatchRequest]
    private let isMulti: Bool
    private let connectionID: String
    private let extraHeaders: [(String, String)]
    private var outlet: Outlet?
    private var strayBytes = 0
    /// Jobs without their last event yet.
    private var open = 0
    /// Per job of a multiplexed stream: seq delivered, nil: ended. And what the client was last told.
    private var cursor: [Int?] = []
    private var toldCursor: [Int?] = []

    /// - Parameters:
    ///   - isMulti: Several jobs with a positional cursor, even when only one is named.
    ///   - headers: Further response headers; free of CR and LF.
    init(
        hub: Hub,
        principal: Principal,
        requests: [WatchRequest],
        isMulti: Bool,
        connectionID: String,
        headers: [(String, String)] = []
    ) {
        self.hub = hub
        self.principal = principal
        self.requests = Array(requests.prefix(hub.limits.watchesPerEventStream))
        self.isMulti = isMulti
        self.connectionID = connectionID
        self.extraHeaders = headers
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { begin(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        begin(context)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        strayBytes += unwrapInboundIn(data).readableBytes
        if strayBytes > hub.limits.strayBytes { context.close(promise: nil) }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        outlet?.writabilityChanged()
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { leave() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func leave() {
        guard let outlet else { return }
        self.outlet = nil
        outlet.detach()
        hub.sessionEnded()
    }

    // MARK: Opening

    private func begin(_ context: ChannelHandlerContext) {
        guard outlet == nil else { return }
        Takeover.configure(context.channel, hub.limits)
        guard !hub.isDraining, hub.admitSession() else {
            turnAway(context)
            return
        }
        let shard = hub.shard(for: context.eventLoop)
        let outlet = Outlet(
            transport: isMulti ? .multiplexedEventStream : .eventStream,
            principal: principal,
            connectionID: connectionID,
            shard: shard,
            session: self,
            context: context
        )
        self.outlet = outlet
        shard.add(outlet)

        var head = responseHead()
        // Clients that lose the gateway without a word come back spread over some seconds.
        head.writeString("retry: \(Int.random(in: 1000...5000))\n\n")
        let hello = EventWriter.connected(
            connection: connectionID,
            atMs: WallClock.nowMs(),
            heartbeatMs: Int(hub.limits.heartbeat.nanoseconds / 1_000_000)
        )
        head.writeImmutableBuffer(EventStreamEncoder.block(kind: .control, seq: 0, body: hello))
        outlet.write(head)
        if shard.isDegraded { outlet.send(control: EventWriter.degraded(isActive: true, atMs: WallClock.nowMs())) }

        cursor = requests.map { $0.isEnd ? nil : ($0.since ?? 0) }
        toldCursor = cursor
        let wanted = requests.enumerated().filter { !$0.element.isEnd }
        open = wanted.count
        if wanted.isEmpty {
            finish()
        } else {
            shard.watch(wanted.map { ($0.element, $0.offset) }, on: outlet)
        }
        shard.flushNow()
    }

    private func responseHead() -> ByteBuffer {
        var head = ByteBuffer()
        head.writeStaticString("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n")
        head.writeStaticString("cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\nconnection: close\r\n")
        for (name, value) in extraHeaders { head.writeString("\(name): \(value)\r\n") }
        head.writeStaticString("\r\n")
        return head
    }

    /// No room, or the gateway is leaving: come back later.
    private func turnAway(_ context: ChannelHandlerContext) {
        var answer = responseHead()
        let afterMs = hub.reconnectMs()
        answer.writeString("retry: \(afterMs)\n\n")
        answer.writeImmutableBuffer(
            EventStreamEncoder.block(
                kind: .control,
                seq: 0,
                body: EventWriter.notice(reconnectAfterMs: afterMs, atMs: WallClock.nowMs())
            )
        )
        Takeover.writeAndClose(answer, context)
    }
}

extension SSESession: OutletSession {
    func watchEnded(_ watcher: Watcher, _ end: WatchEnd) {
        open -= 1
        // A job that was not found keeps its cursor: it may still be submitted.
        if case .refused = end {} else { cursor[watcher.ordinal] = nil }
        if open == 0 { finish() }
    }

    private func finish() {
        guard let outlet else { return }
        if isMulti, let block = cursorBlock() { outlet.write(block) }
        outlet.closeAfterFlush()
    }

    func cursorBlock() -> ByteBuffer? {
        guard let outlet else { return nil }
        for watcher in outlet.watchers where cursor[watcher.ordinal] != nil { cursor[watcher.ordinal] = watcher.state.delivered }
        guard cursor != toldCursor else { return nil }
        toldCursor = cursor
        return ByteBuffer(string: "id: \(EventCursor.text(cursor))\n\n")
    }

    func heartbeat(now: NIODeadline) {
        if let outlet, outlet.isWritable { outlet.write(Self.comment) }
    }

    func drain(reconnectAfterMs: Int) {
        guard let outlet else { return }
        if isMulti, let block = cursorBlock() { outlet.write(block) }
        outlet.write(ByteBuffer(string: "retry: \(reconnectAfterMs)\n\n"))
        outlet.send(control: EventWriter.notice(reconnectAfterMs: reconnectAfterMs, atMs: WallClock.nowMs()))
        outlet.closeAfterFlush()
    }

    private static let comment = ByteBuffer(string: ":\n\n")
}
