public import NIOCore
import NIOPosix
import Synchronization

/// An event stream client for tests, as native `EventSource` would be, without the reconnect.
public final class SSEClient: Sendable {
    private let channel: any Channel
    private let state: LiveClientState

    private init(channel: any Channel, state: LiveClientState) {
        self.channel = channel
        self.state = state
    }

    /// Connects and waits for the status line, whatever it says.
    public static func connect(
        host: String = "127.0.0.1",
        port: Int,
        path: String,
        lastEventID: String? = nil,
        headers: [(String, String)] = [],
        group: (any EventLoopGroup)? = nil,
        within limit: Duration = .seconds(10)
    ) async throws -> SSEClient {
        var request = "GET \(path) HTTP/1.1\r\nhost: \(host):\(port)\r\naccept: text/event-stream\r\n"
        if let lastEventID { request += "last-event-id: \(lastEventID)\r\n" }
        for (name, value) in headers { request += "\(name): \(value)\r\n" }
        request += "\r\n"
        let state = LiveClientState()
        let bytes = ByteBuffer(string: request)
        let channel = try await ClientBootstrap(group: group ?? MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(5))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(SSEClientHandler(request: bytes, state: state))
                }
            }
            .connect(host: host, port: port).get()
        let client = SSEClient(channel: channel, state: state)
        try await eventually(within: limit, "the response head") {
            if let failure = state.content.withLock({ $0.failure }) { throw TestSupportError(.process, failure) }
            return state.content.withLock { $0.status != nil }
        }
        return client
    }

    public var status: Int { state.content.withLock { $0.status ?? 0 } }
    /// The response head as sent.
    public var head: String { state.content.withLock { $0.head } }
    /// What `EventSource` would send as `Last-Event-ID` when it reconnects.
    public var lastEventID: String? { state.content.withLock { $0.lastEventID } }
    /// The newest `retry:`, in ms.
    public var retryMs: Int? { state.content.withLock { $0.retryMs } }
    public var commentCount: Int { state.content.withLock { $0.comments } }
    public var isClosed: Bool { state.content.withLock { $0.isClosed } }
    public var events: [ReceivedEvent] { state.content.withLock { $0.events } }
    public func events(of job: String) -> [ReceivedEvent] { events.filter { $0.job == job } }

    /// The next event that `predicate` accepts; those before it are passed over. Throws when the stream ends or time is up.
    public func next(within limit: Duration = .seconds(10), where predicate: (ReceivedEvent) -> Bool) async throws -> ReceivedEvent {
        try await state.next(within: limit, where: predicate)
    }

    public func setReading(_ isReading: Bool) async throws { try await channel.setOption(.autoRead, value: isReading).get() }

    public func close() async { try? await channel.close() }
}

private final class SSEClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// A response head or event longer than this is an error.
    private static let maximumBuffered = 16 * 1024 * 1024

    private let state: LiveClientState
    private let request: ByteBuffer
    private var pending: [UInt8] = []
    private var isStreaming = false

    init(request: ByteBuffer, state: LiveClientState) {
        self.request = request
        self.state = state
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(request), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        pending += unwrapInboundIn(data).readableBytesView
        if !isStreaming, let end = firstIndex(of: [13, 10, 13, 10]) {
            let head = String(decoding: pending[..<end], as: UTF8.self)
            let status = head.split(separator: " ", maxSplits: 2).dropFirst().first.flatMap { Int($0) } ?? 0
            isStreaming = true
            pending.removeFirst(end + 4)
            state.content.withLock { ($0.head, $0.status) = (head, status) }
        }
        while isStreaming, let end = firstIndex(of: [10, 10]) {
            receive(String(decoding: pending[..<end], as: UTF8.self))
            pending.removeFirst(end + 2)
        }
        if pending.count > Self.maximumBuffered { context.close(promise: nil) }
    }

    private func firstIndex(of mark: [UInt8]) -> Int? {
        guard pending.count >= mark.count else { return nil }
        return (0...(pending.count - mark.count)).first { pending[$0..<$0 + mark.count].elementsEqual(mark) }
    }

    private func receive(_ block: String) {
        var data: [Substring] = []
        for line in block.split(separator: "\n") {
            if line.hasPrefix("data: ") { data.append(line.dropFirst(6)) }
            if line.hasPrefix("id: ") { state.content.withLock { $0.lastEventID = String(line.dropFirst(4)) } }
            if line.hasPrefix("retry: ") { state.content.withLock { $0.retryMs = Int(line.dropFirst(7)) } }
            if line.hasPrefix(":") { state.content.withLock { $0.comments += 1 } }
        }
        guard !data.isEmpty else { return }
        let id = state.content.withLock { $0.lastEventID }
        state.append(ReceivedEvent(text: data.joined(separator: "\n"), id: id))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        state.content.withLock { $0.failure = "\(error)" }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        state.content.withLock {
            $0.isClosed = true
            if $0.status == nil, $0.failure == nil { $0.failure = "closed before a response head came" }
        }
        context.fireChannelInactive()
    }
}
