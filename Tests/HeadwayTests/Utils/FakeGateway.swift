import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A gateway that answers each request as the test says: real sockets, scripted behaviour.
final class FakeGateway: Sendable {
    struct Request: Sendable, Equatable {
        var method: String
        var path: String
        var lastEventID: String?
        var body: String
    }

    enum Reply: Sendable {
        case answer(status: Int, body: String)
        /// An event stream; afterwards it stays open or is closed.
        case stream(String, staysOpen: Bool)
        /// The connection breaks without an answer.
        case broken
    }

    private let requests = Mutex<[Request]>([])
    private let script: @Sendable (Request, Int) -> Reply
    private let channel: Mutex<(any Channel)?>

    var url: String { "http://127.0.0.1:\(channel.withLock { $0?.localAddress?.port } ?? 0)" }
    var seen: [Request] { requests.withLock { $0 } }

    private init(_ script: @escaping @Sendable (Request, Int) -> Reply) {
        self.script = script
        channel = Mutex(nil)
    }

    /// - Parameter script: The reply to a request; the number counts requests of the same method and path before it.
    static func with<Value>(
        _ script: @escaping @Sendable (Request, Int) -> Reply,
        during body: (FakeGateway) async throws -> Value
    ) async throws -> Value {
        let gateway = FakeGateway(script)
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(Handler(gateway: gateway))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        gateway.channel.withLock { $0 = channel }
        let value: Value
        do {
            value = try await body(gateway)
        } catch {
            try? await channel.close()
            throw error
        }
        try? await channel.close()
        return value
    }

    private func reply(to request: Request) -> Reply {
        let count = requests.withLock { requests in
            defer { requests.append(request) }
            let path = request.path.prefix { $0 != "?" }
            return requests.count { $0.method == request.method && $0.path.prefix { $0 != "?" } == path }
        }
        return script(request, count)
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let gateway: FakeGateway
        private var request = Request(method: "", path: "", lastEventID: nil, body: "")

        init(gateway: FakeGateway) { self.gateway = gateway }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head):
                request = Request(
                    method: head.method.rawValue,
                    path: head.uri,
                    lastEventID: head.headers.first(name: "last-event-id"),
                    body: ""
                )
            case .body(let buffer): request.body += String(buffer: buffer)
            case .end: answer(context)
            }
        }

        private func answer(_ context: ChannelHandlerContext) {
            switch gateway.reply(to: request) {
            case .broken: context.close(promise: nil)
            case .answer(let status, let body):
                let head = HTTPResponseHead(
                    version: .http1_1,
                    status: .init(statusCode: status),
                    headers: ["content-length": "\(body.utf8.count)"]
                )
                context.write(wrapOutboundOut(.head(head)), promise: nil)
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: body)))), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            case .stream(let text, let staysOpen):
                let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-type": "text/event-stream"])
                context.write(wrapOutboundOut(.head(head)), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: text)))), promise: nil)
                if !staysOpen { context.close(promise: nil) }
            }
        }
    }
}

/// The text of one event on a stream.
func sse(_ json: String, id: Int) -> String { "id: \(id)\ndata: \(json)\n\n" }

/// The JSON of an event.
func eventJSON(_ seq: Int, _ phase: String, percent: Double = 0, type: String = "progress") -> String {
    #"{"job":"J","seq":\#(seq),"type":"\#(type)","phase":"\#(phase)","percent":\#(percent),"attempt":1}"#
}
