import NIOCore
import NIOPosix
import Synchronization
import WebSocketWire

/// Arrival times of marked events, from all watchers of one benchmark.
final class BenchArrivals: Sendable {
    private struct State {
        var latenciesUs: [Int] = []
        var hasEvents = 0
    }

    private let state = Mutex(State())

    /// What stands in front of the send time in an event's message.
    static let mark = Array("\"message\":\"t=".utf8)

    /// Takes the text of one event that arrived now. Events without the mark only tell that the watch works.
    func record(_ text: ByteBuffer, now: NIODeadline) {
        let sentNs: Int? = text.withUnsafeReadableBytes { bytes in
            guard let start = Self.find(Self.mark, in: bytes) else { return nil }
            var value = 0
            for byte in bytes[(start + Self.mark.count)...] {
                guard byte >= 0x30, byte <= 0x39 else { break }
                value = value * 10 + Int(byte - 0x30)
            }
            return value
        }
        state.withLock {
            $0.hasEvents += 1
            if let sentNs { $0.latenciesUs.append((Int(now.uptimeNanoseconds) - sentNs) / 1000) }
        }
    }

    var eventCount: Int { state.withLock { $0.hasEvents } }
    var latenciesUs: [Int] { state.withLock { $0.latenciesUs } }

    private static func find(_ pattern: [UInt8], in bytes: UnsafeRawBufferPointer) -> Int? {
        guard bytes.count >= pattern.count else { return nil }
        outer: for start in 0...(bytes.count - pattern.count) {
            for offset in pattern.indices where bytes[start + offset] != pattern[offset] { continue outer }
            return start
        }
        return nil
    }
}

/// One WebSocket client that watches jobs and times what arrives.
final class BenchWatcher: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let arrivals: BenchArrivals
    private let jobs: [String]
    private let address: (host: String, port: Int)
    private var handshake: WebSocketClientHandshake?
    private var parser = WebSocketParser(role: .client, maximumMessageBytes: Limits.benchMessageBytes)
    private var isOpen = false

    init(arrivals: BenchArrivals, jobs: [String], host: String, port: Int) {
        self.arrivals = arrivals
        self.jobs = jobs
        self.address = (host, port)
    }

    static func connect(
        to address: (host: String, port: Int),
        jobs: [String],
        arrivals: BenchArrivals,
        group: any EventLoopGroup
    ) async throws -> any Channel {
        try await ClientBootstrap(group: group)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        BenchWatcher(arrivals: arrivals, jobs: jobs, host: address.host, port: address.port)
                    )
                }
            }
            .connect(host: address.host, port: address.port).get()
    }

    func channelActive(context: ChannelHandlerContext) {
        var generator = SystemRandomNumberGenerator()
        let key = WebSocketHandshake.makeKey(using: &generator)
        handshake = WebSocketClientHandshake(key: key)
        let request = WebSocketHandshake.request(
            host: "\(address.host):\(address.port)",
            path: "/v1/ws",
            key: key,
            subprotocols: ["headway.v1.json"]
        )
        context.writeAndFlush(wrapOutboundOut(request), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        do {
            if isOpen {
                parser.append(bytes)
            } else {
                guard let accepted = try handshake?.receive(bytes) else { return }
                isOpen = true
                let names = jobs.map { "\"\($0)\"" }.joined(separator: ",")
                send(.text, ByteBuffer(string: "{\"op\":\"watch\",\"jobs\":[\(names)],\"id\":1}"), context)
                parser.append(accepted.leftover)
            }
            let now = NIODeadline.now()
            while let message = try parser.next() {
                switch message {
                case .text(let text): arrivals.record(text, now: now)
                case .ping(let payload): send(.pong, payload, context)
                case .close: context.close(promise: nil)
                case .binary, .pong: break
                }
            }
        } catch {
            context.close(promise: nil)
        }
    }

    private func send(_ opcode: WebSocketFrame.Opcode, _ payload: ByteBuffer, _ context: ChannelHandlerContext) {
        let frame = WebSocketFrame.make(opcode, payload, mask: UInt32.random(in: 0...UInt32.max))
        context.writeAndFlush(wrapOutboundOut(frame), promise: nil)
    }
}
