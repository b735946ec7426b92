public import NIOCore
import NIOPosix
import Synchronization
import WebSocketWire

/// A WebSocket client for tests: one socket, raw frames, everything it received with the time of arrival.
public final class WebSocketClient: Sendable {
    private let channel: any Channel
    private let state: LiveClientState

    private init(channel: any Channel, state: LiveClientState) {
        self.channel = channel
        self.state = state
    }

    /// Connects and waits for the 101.
    /// - Parameter receiveBuffer: SO_RCVBUF in bytes, small for a client that is to stall.
    public static func connect(
        host: String = "127.0.0.1",
        port: Int,
        path: String = "/v1/ws",
        headers: [(String, String)] = [],
        subprotocols: [String] = ["headway.v1.json"],
        receiveBuffer: Int? = nil,
        group: (any EventLoopGroup)? = nil,
        within limit: Duration = .seconds(10)
    ) async throws -> WebSocketClient {
        var generator = SystemRandomNumberGenerator()
        let key = WebSocketHandshake.makeKey(using: &generator)
        let request = WebSocketHandshake.request(
            host: "\(host):\(port)",
            path: path,
            key: key,
            subprotocols: subprotocols,
            headers: headers
        )
        let state = LiveClientState()
        var bootstrap = ClientBootstrap(group: group ?? MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(5))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(WebSocketClientHandler(key: key, request: request, state: state))
                }
            }
        if let receiveBuffer { bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: .init(receiveBuffer)) }
        let channel = try await bootstrap.connect(host: host, port: port).get()
        let client = WebSocketClient(channel: channel, state: state)
        try await eventually(within: limit, "the handshake") {
            if let failure = state.content.withLock({ $0.failure }) { throw TestSupportError(.process, failure) }
            return state.content.withLock { $0.isOpen }
        }
        return client
    }

    /// Sends one text message.
    public func send(_ text: String) async throws {
        try await channel.writeAndFlush(WebSocketFrame.make(.text, ByteBuffer(string: text), mask: .random(in: 1...UInt32.max)))
    }

    /// Sends bytes as they are, frames or not.
    public func send(raw bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes) }

    /// Watches jobs and waits for the acknowledgement.
    @discardableResult
    public func watch(_ jobs: [String], since: [String: Int] = [:], within limit: Duration = .seconds(10)) async throws -> ReceivedEvent {
        let names = jobs.map { "\"\($0)\"" }.joined(separator: ",")
        let cursors = since.map { "\"\($0.key)\":\($0.value)" }.joined(separator: ",")
        try await send("{\"op\":\"watch\",\"jobs\":[\(names)],\"since\":{\(cursors)},\"id\":1}")
        return try await next(within: limit) { $0.type == "ack" }
    }

    /// The next event that `predicate` accepts; those before it are passed over. Throws when the connection ends or time is up.
    public func next(within limit: Duration = .seconds(10), where predicate: (ReceivedEvent) -> Bool) async throws -> ReceivedEvent {
        try await state.next(within: limit, where: predicate)
    }

    /// Everything received so far, in order.
    public var events: [ReceivedEvent] { state.content.withLock { $0.events } }
    /// Of one job.
    public func events(of job: String) -> [ReceivedEvent] { events.filter { $0.job == job } }
    public var closeCode: UInt16? { state.content.withLock { $0.closeCode } }
    public var closeReason: String { state.content.withLock { $0.closeReason } }
    public var pingCount: Int { state.content.withLock { $0.pings } }
    public var isClosed: Bool { state.content.withLock { $0.isClosed } }

    /// Stops reading the socket, or goes on: the kernel's buffers fill and the server sees a stalled peer.
    public func setReading(_ isReading: Bool) async throws {
        // Megabytes through a window of a small buffer would take TCP minutes.
        if isReading { try await channel.setOption(.socketOption(.so_rcvbuf), value: 1 << 20).get() }
        try await channel.setOption(.autoRead, value: isReading).get()
    }

    /// Closes in good order and waits for the end.
    public func close() async {
        try? await channel.writeAndFlush(WebSocketFrame.close(.normal, mask: 7))
        try? await eventually(within: .seconds(3), "the close") { isClosed }
        try? await channel.close()
    }

    /// Cuts the connection without a word.
    public func abort() async { try? await channel.close() }
}

private final class WebSocketClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let state: LiveClientState
    private let request: ByteBuffer
    private var handshake: WebSocketClientHandshake
    private var parser = WebSocketParser(role: .client, maximumMessageBytes: 16 * 1024 * 1024)
    private var isOpen = false

    init(key: String, request: ByteBuffer, state: LiveClientState) {
        self.state = state
        self.request = request
        handshake = WebSocketClientHandshake(key: key)
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(request), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do {
            var bytes = unwrapInboundIn(data)
            if !isOpen {
                guard let accepted = try handshake.receive(bytes) else { return }
                isOpen = true
                state.content.withLock { $0.isOpen = true }
                bytes = accepted.leftover
            }
            parser.append(bytes)
            while let message = try parser.next() { receive(message, context) }
        } catch {
            fail("\(error)", context)
        }
    }

    private func receive(_ message: WebSocketParser.Message, _ context: ChannelHandlerContext) {
        switch message {
        case .text(let text): state.append(ReceivedEvent(text: String(buffer: text)))
        case .ping(let payload):
            state.content.withLock { $0.pings += 1 }
            context.writeAndFlush(wrapOutboundOut(WebSocketFrame.make(.pong, payload, mask: 5)), promise: nil)
        case .close(let code, let reason):
            state.content.withLock { ($0.closeCode, $0.closeReason) = (code?.rawValue, reason) }
            context.writeAndFlush(wrapOutboundOut(WebSocketFrame.close(code ?? .normal, mask: 3)), promise: nil)
        case .binary, .pong: break
        }
    }

    private func fail(_ text: String, _ context: ChannelHandlerContext) {
        state.content.withLock { $0.failure = text }
        context.close(promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { fail("\(error)", context) }

    func channelInactive(context: ChannelHandlerContext) {
        state.content.withLock {
            $0.isClosed = true
            if !$0.isOpen, $0.failure == nil { $0.failure = "closed before the handshake was answered" }
        }
        context.fireChannelInactive()
    }
}
