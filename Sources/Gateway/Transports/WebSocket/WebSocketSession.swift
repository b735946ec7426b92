import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import WebSocketWire

/// One WebSocket, after it was taken over from the HTTP handlers. `ClientMessage` describes what clients say, DESIGN's event
/// object what they hear.
///
/// Close codes: 1002/1003/1007/1009 as the RFC says; 1012 on drain, with `{"reconnect_after_ms":N}` as reason; 4400 too many
/// errors and 4429 too many messages (do not come back like this); 4503 no room (come back later, reason as for 1012).
final class WebSocketSession: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    static let subprotocol = "headway.v1.json"

    private let hub: Hub
    private let principal: Principal
    private let connectionID: String
    private let extraHeaders: [(String, String)]
    /// Only until the 101 is written.
    private var requestHead: HTTPRequestHead?
    private var outlet: Outlet?
    private var context: ChannelHandlerContext?
    private var parser: WebSocketParser
    private var heardAt = NIODeadline.now()
    private var errors = 0
    private var messages = 0
    private var skipsPing = false
    private var isClosing = false

    /// - Parameter headers: Further response headers; free of CR and LF.
    init(hub: Hub, principal: Principal, requestHead: HTTPRequestHead, connectionID: String, headers: [(String, String)] = []) {
        self.hub = hub
        self.principal = principal
        self.requestHead = requestHead
        self.connectionID = connectionID
        self.extraHeaders = headers
        self.parser = WebSocketParser(role: .server, maximumMessageBytes: hub.limits.clientMessageBytes)
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
        heardAt = context.eventLoop.now
        parser.append(unwrapInboundIn(data))
        do {
            while outlet != nil, let message = try parser.next() { receive(message) }
        } catch {
            close(error.closeCode, reason: error.message)
        }
        outlet?.shard.flushNow()
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
        context = nil
        guard let outlet else { return }
        self.outlet = nil
        outlet.detach()
        hub.sessionEnded()
    }

    // MARK: Opening

    private func begin(_ context: ChannelHandlerContext) {
        guard let head = requestHead else { return }
        requestHead = nil
        self.context = context
        heardAt = context.eventLoop.now
        Takeover.configure(context.channel, hub.limits)
        guard let key = head.headers.first(name: "sec-websocket-key"), WebSocketHandshake.isValidKey(key) else {
            Takeover.writeAndClose(Self.badRequest, context)
            return
        }
        let offers = head.headers[canonicalForm: "sec-websocket-protocol"].contains { $0 == Self.subprotocol }
        var answer = WebSocketHandshake.response(key: key, subprotocol: offers ? Self.subprotocol : nil, headers: extraHeaders)
        guard !hub.isDraining, hub.admitSession() else {
            let code = hub.isDraining ? WebSocketCloseCode.serviceRestart : .overloaded
            answer.writeImmutableBuffer(WebSocketFrame.close(code, reason: Self.reconnectReason(hub.reconnectMs())))
            Takeover.writeAndClose(answer, context)
            return
        }
        let shard = hub.shard(for: context.eventLoop)
        let outlet = Outlet(
            transport: .webSocket,
            principal: principal,
            connectionID: connectionID,
            shard: shard,
            session: self,
            context: context
        )
        self.outlet = outlet
        shard.add(outlet)
        let hello = EventWriter.connected(
            connection: connectionID,
            atMs: WallClock.nowMs(),
            heartbeatMs: 2 * Int(hub.limits.heartbeat.nanoseconds / 1_000_000)
        )
        WebSocketFrame.append(.text, hello, to: &answer)
        outlet.write(answer)
        if shard.isDegraded { outlet.send(control: EventWriter.degraded(isActive: true, atMs: WallClock.nowMs())) }
        shard.flushNow()
    }

    private static let badRequest: ByteBuffer = {
        let body = EventWriter.object {
            $0.problem("error", WatchProblem("invalid_handshake", "sec-websocket-key must be 16 bytes in base64"))
        }
        var answer = ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
        answer.writeString("content-length: \(body.readableBytes)\r\nconnection: close\r\n\r\n")
        answer.writeImmutableBuffer(body)
        return answer
    }()

    private static func reconnectReason(_ afterMs: Int) -> String { "{\"reconnect_after_ms\":\(afterMs)}" }

    // MARK: Messages

    private func receive(_ message: WebSocketParser.Message) {
        messages += 1
        guard messages <= hub.limits.clientMessagesPerTick else {
            close(.tooManyMessages, reason: "too many messages")
            return
        }
        switch message {
        case .text(let text): if !isClosing { handle(text) }
        case .binary: close(.unsupportedData, reason: "messages are JSON text")
        // A peer that does not read what it asks for gets no more of it.
        case .ping(let payload): if outlet?.isWritable ?? false { outlet?.write(WebSocketFrame.make(.pong, payload)) }
        case .pong: break
        case .close(let code, _):
            if !isClosing { outlet?.write(WebSocketFrame.close(code ?? .normal)) }
            isClosing = true
            outlet?.closeAfterFlush()
        }
    }

    private func handle(_ text: ByteBuffer) {
        let message: ClientMessage
        do {
            message = try ClientMessage.parse(text)
        } catch {
            refuse(id: error.id, error.problem)
            return
        }
        switch message {
        case .watch(let jobs, let since, let id): watch(jobs, since, id)
        case .unwatch(let jobs, let id): unwatch(jobs, id)
        case .ping(let id): outlet?.send(control: EventWriter.pong(id: id, atMs: WallClock.nowMs()))
        case .auth(let id): refuse(id: id, WatchProblem("auth_not_configured", "this gateway checks no tokens; leave `auth` out"))
        }
    }

    private func refuse(id: Int?, _ problem: WatchProblem) {
        errors += 1
        guard errors <= hub.limits.clientErrors else {
            close(.tooManyErrors, reason: problem.message)
            return
        }
        outlet?.send(control: EventWriter.error(id: id, problem))
    }

    private func watch(_ names: [String], _ since: [String: Int], _ id: Int?) {
        guard let outlet else { return }
        var answers: [(name: String, problem: WatchProblem?)] = []
        var requests: [WatchRequest] = []
        for name in names {
            guard let job = JobID(name) else {
                answers.append((name, WatchProblem("invalid_job_id", "an id has 1–128 characters of A-Z a-z 0-9 . _ : - ~")))
                continue
            }
            if outlet.watcher(of: job) == nil {
                guard outlet.watchers.count + requests.count < hub.limits.watchesPerWebSocket else {
                    let problem = "a connection watches at most \(hub.limits.watchesPerWebSocket) jobs; open another one"
                    answers.append((name, WatchProblem("too_many_watches", problem)))
                    continue
                }
                requests.append(WatchRequest(job: job, since: since[name]))
            }
            answers.append((name, nil))
        }
        // First the answer, then whatever the watch brings.
        outlet.send(control: EventWriter.acknowledgement(id: id, jobs: answers))
        if !requests.isEmpty { outlet.shard.watch(requests.map { ($0, 0) }, on: outlet) }
    }

    private func unwatch(_ names: [String], _ id: Int?) {
        guard let outlet else { return }
        for name in names {
            if let job = JobID(name), let watcher = outlet.watcher(of: job) { outlet.shard.unwatch(watcher) }
        }
        outlet.send(control: EventWriter.acknowledgement(id: id, jobs: names.map { ($0, nil) }))
    }

    // MARK: Closing

    /// Says why, and waits a moment for the peer to close.
    private func close(_ code: WebSocketCloseCode, reason: String) {
        guard !isClosing, let outlet, let context else { return }
        isClosing = true
        for watcher in outlet.watchers { outlet.shard.unwatch(watcher) }
        outlet.write(WebSocketFrame.close(code, reason: reason))
        outlet.shard.flushNow()
        // Safety: the timer runs on this connection's event loop.
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: hub.limits.closeGrace) { bound.value.close(promise: nil) }
    }
}

extension WebSocketSession: OutletSession {
    func watchEnded(_ watcher: Watcher, _ end: WatchEnd) {}

    func cursorBlock() -> ByteBuffer? { nil }

    func heartbeat(now: NIODeadline) {
        messages = 0
        guard let outlet, !isClosing else { return }
        if now - heardAt > hub.limits.silence {
            outlet.close()
            return
        }
        if !skipsPing, outlet.isWritable { outlet.write(Self.ping) }
        skipsPing.toggle()
    }

    func drain(reconnectAfterMs: Int) { close(.serviceRestart, reason: Self.reconnectReason(reconnectAfterMs)) }

    private static let ping = WebSocketFrame.make(.ping, ByteBuffer())
}

extension WebSocketCloseCode {
    /// 4400–4499: coming back with the same behaviour is useless; 4500–4599: come back later.
    static let tooManyErrors = Self(rawValue: 4400)
    static let tooManyMessages = Self(rawValue: 4429)
    static let overloaded = Self(rawValue: 4503)
}
