import NIOCore
import NIOPosix
import Synchronization
import TestSupport

/// A socket and nothing else: sends the bytes it is told to, keeps what comes back, reads only when it should.
final class RawClient: Sendable {
    struct Response: Sendable {
        let status: Int
        let headers: [(name: String, value: String)]
        let body: [UInt8]

        var text: String { String(decoding: body, as: UTF8.self) }
        func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
        /// The code of an error's JSON.
        var code: String? {
            guard let start = text.firstRange(of: "\"code\":\"")?.upperBound else { return nil }
            return String(text[start...].prefix { $0 != "\"" })
        }
    }

    /// What has come, shared with the channel's handler.
    private final class Inbox: Sendable {
        struct Content {
            var received: [UInt8] = []
            /// Bytes of `received` that were taken as answers.
            var taken = 0
            var isClosed = false
        }
        let content = Mutex(Content())
    }

    private let inbox: Inbox
    private let channel: any Channel

    static func connect(port: Int, receiveBuffer: Int? = nil, reads: Bool = true) async throws -> RawClient {
        let inbox = Inbox()
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(5))
            .channelOption(.autoRead, value: reads)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Collector(inbox: inbox)) }
            }
        if let receiveBuffer { bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: .init(receiveBuffer)) }
        return RawClient(inbox: inbox, channel: try await bootstrap.connect(host: "127.0.0.1", port: port).get())
    }

    private init(inbox: Inbox, channel: any Channel) {
        self.inbox = inbox
        self.channel = channel
    }

    deinit { channel.close(promise: nil) }

    /// Sends bytes; a server that has closed already is no error here.
    func send(_ bytes: [UInt8]) async {
        try? await channel.writeAndFlush(ByteBuffer(bytes: bytes)).get()
    }

    func send(_ text: String) async { await send(Array(text.utf8)) }

    /// A request with `Host` and, when there is a body, its length.
    func request(_ method: String, _ path: String, headers: [(String, String)] = [], body: [UInt8]? = nil) async {
        await send(Self.bytes(method, path, headers: headers, body: body))
    }

    static func bytes(_ method: String, _ path: String, headers: [(String, String)] = [], body: [UInt8]? = nil) -> [UInt8] {
        var text = "\(method) \(path) HTTP/1.1\r\n"
        if !headers.contains(where: { $0.0.lowercased() == "host" }) { text += "Host: localhost\r\n" }
        for (name, value) in headers { text += "\(name): \(value)\r\n" }
        if let body { text += "Content-Length: \(body.count)\r\n" }
        return Array((text + "\r\n").utf8) + (body ?? [])
    }

    /// The next whole answer.
    func response(isHead: Bool = false, within limit: Duration = .seconds(10)) async throws -> Response {
        try await eventually(within: limit, "an answer") { () -> Response? in
            try self.inbox.content.withLock { state in
                guard let (response, end) = Self.parse(state.received[state.taken...], isHead: isHead) else {
                    if state.isClosed { throw TestSupportError(.process, "closed after \(state.received.count - state.taken) more bytes") }
                    return nil
                }
                state.taken = end
                return response
            }
        }
    }

    /// Sends one request and waits for its answer.
    func ask(_ method: String, _ path: String, headers: [(String, String)] = [], body: [UInt8]? = nil) async throws -> Response {
        await request(method, path, headers: headers, body: body)
        return try await response(isHead: method == "HEAD")
    }

    func ask(_ method: String, _ path: String, json: String, headers: [(String, String)] = []) async throws -> Response {
        try await ask(method, path, headers: headers + [("Content-Type", "application/json")], body: Array(json.utf8))
    }

    var isClosed: Bool { inbox.content.withLock { $0.isClosed } }
    /// Bytes that were not taken as an answer.
    var unread: [UInt8] { inbox.content.withLock { Array($0.received[$0.taken...]) } }

    /// Waits until the server has closed its side.
    func waitUntilClosed(within limit: Duration = .seconds(10)) async throws {
        try await eventually(within: limit, "the server's close") { self.isClosed }
    }

    func close() async { try? await channel.close().get() }

    /// With `reads: false`: takes what is there now.
    func read() { channel.read() }

    private static func parse(_ bytes: ArraySlice<UInt8>, isHead: Bool) -> (Response, end: Int)? {
        guard let headEnd = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        let lines = String(decoding: bytes[..<headEnd.lowerBound], as: UTF8.self).split(separator: "\r\n")
        let status = lines.first.map { $0.split(separator: " ") }.flatMap { $0.count > 1 ? Int($0[1]) : nil } ?? 0
        let headers = lines.dropFirst().compactMap { line -> (name: String, value: String)? in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            return (line[..<colon].lowercased(), String(line[line.index(after: colon)...].drop { $0 == " " }))
        }
        let length =
            isHead || status == 204 || status == 304 || status < 200
            ? 0 : headers.first { $0.name == "content-length" }.flatMap { Int($0.value) } ?? 0
        guard bytes.endIndex - headEnd.upperBound >= length else { return nil }
        let end = headEnd.upperBound + length
        return (Response(status: status, headers: headers, body: Array(bytes[headEnd.upperBound..<end])), end)
    }

    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let inbox: Inbox

        init(inbox: Inbox) { self.inbox = inbox }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            inbox.content.withLock { $0.received.append(contentsOf: buffer.readableBytesView) }
        }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            // The server has sent its last byte.
            if case .inputClosed? = event as? ChannelEvent { inbox.content.withLock { $0.isClosed = true } }
        }

        func channelInactive(context: ChannelHandlerContext) { inbox.content.withLock { $0.isClosed = true } }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
