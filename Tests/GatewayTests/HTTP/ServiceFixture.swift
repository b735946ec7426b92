import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Telemetry

@testable import Gateway

/// The HTTP side alone on a real socket, with routes that do what a test needs and no Redis.
struct ServiceFixture: Sendable {
    let service: HTTPService
    let registry: MetricsRegistry
    let port: Int
    let probe: Probe

    /// What the routes saw.
    final class Probe: Sendable {
        private let heldRoutes = Mutex(0)
        private let cancelledTasks = Mutex(0)
        private let bodyBytes = Mutex(0)
        private let bodyEnds = Mutex<[String]>([])
        private let streamBytes = Mutex<[UInt8]>([])
        /// `/slow` and the slow reader of `/up` wait while this is set.
        private let held = Mutex(true)

        /// Routes that have begun to wait.
        var waiting: Int { heldRoutes.withLock { $0 } }
        var cancelled: Int { cancelledTasks.withLock { $0 } }
        var received: Int { bodyBytes.withLock { $0 } }
        var ends: [String] { bodyEnds.withLock { $0 } }
        var stream: [UInt8] { streamBytes.withLock { $0 } }
        func release() { held.withLock { $0 = false } }

        fileprivate func waitWhileHeld() async throws {
            heldRoutes.withLock { $0 += 1 }
            do {
                while held.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(2)) }
            } catch {
                cancelledTasks.withLock { $0 += 1 }
                throw error
            }
        }
        fileprivate func took(_ bytes: Int) { bodyBytes.withLock { $0 += bytes } }
        fileprivate func ended(_ how: String) { bodyEnds.withLock { $0.append(how) } }
        fileprivate func streamed(_ buffer: ByteBuffer) { streamBytes.withLock { $0.append(contentsOf: buffer.readableBytesView) } }
    }

    static func with(
        limits: GatewayLimits = .init(),
        allowedOrigins: [String] = [],
        _ body: (ServiceFixture) async throws -> Void
    ) async throws {
        let registry = MetricsRegistry()
        let probe = Probe()
        let service = HTTPService(
            router: Router(routes(registry, probe)),
            limits: limits,
            hostPolicy: HostPolicy(isLoopback: true, allowedHosts: [], allowedOrigins: allowedOrigins),
            environment: .system,
            registry: registry,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        )
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 256)
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 512, initial: 2048, maximum: limits.readBytes)
            )
            .childChannelOption(.maxMessagesPerRead, value: 2)
            .childChannelInitializer { channel in channel.eventLoop.makeCompletedFuture { try service.configure(channel) } }
            .bind(host: "127.0.0.1", port: 0).get()
        var failure: (any Error)?
        do {
            try await body(ServiceFixture(service: service, registry: registry, port: server.localAddress?.port ?? 0, probe: probe))
        } catch {
            failure = error
        }
        probe.release()
        service.connections.closeAll()
        try await server.close()
        if let failure { throw failure }
    }

    func connect() async throws -> RawClient { try await RawClient.connect(port: port) }

    private static func routes(_ registry: MetricsRegistry, _ probe: Probe) -> [Route] {
        [
            Route(.GET, "/now", registry: registry, .immediate { .text("now \($0.query("n") ?? "")") }),
            Route(.GET, "/fails", registry: registry, .immediate { _ in throw GatewayError(.conflict, "on purpose") }),
            Route(.GET, "/big", registry: registry, .immediate { _ in .text(String(repeating: "b", count: 4_000_000)) }),
            Route(.POST, "/echo", registry: registry, .task(bodyLimit: 1000) { request in .text(String(buffer: request.body)) }),
            Route(
                .GET,
                "/slow",
                registry: registry,
                .task(bodyLimit: 0) { request in
                    try await probe.waitWhileHeld()
                    return .text("slow \(request.query("n") ?? "")")
                }
            ),
            Route(
                .GET,
                "/split",
                registry: registry,
                .immediate { request in
                    var response = HTTPResponse.text("x")
                    response.add("x-evil", request.query("v") ?? "")
                    return response
                }
            ),
            Route(.POST, "/up", registry: registry, .streamed { request, body in try await upload(request, body, probe) }),
            Route(.POST, "/refuse", registry: registry, .streamed { _, _ in throw GatewayError(.conflict, "not wanted") }),
            Route(
                .GET,
                "/stream",
                registry: registry,
                .session { request in
                    if request.query("refuse") != nil { throw GatewayError(.upgradeRequired, "no") }
                    return .takeOver { RawSession(probe: probe) }
                }
            ),
        ]
    }

    private static func upload(_ request: HTTPRequest, _ body: RequestBody, _ probe: Probe) async throws -> HTTPResponse {
        var count = 0
        do {
            for try await piece in body {
                count += piece.readableBytes
                probe.took(piece.readableBytes)
                if request.query("hold") != nil { try await probe.waitWhileHeld() }
            }
        } catch {
            probe.ended("cut")
            throw error
        }
        probe.ended("whole")
        return .text("\(count)")
    }
}

/// A stream that greets and keeps what it gets.
private final class RawSession: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let probe: ServiceFixture.Probe

    init(probe: ServiceFixture.Probe) { self.probe = probe }

    func handlerAdded(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "HTTP/1.1 200 OK\r\n\r\nraw:")), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        probe.streamed(bytes)
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    }
}
