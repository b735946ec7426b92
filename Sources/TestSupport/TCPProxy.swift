import NIOCore
import NIOPosix
import Synchronization

/// A relay on 127.0.0.1 between one program and its server, that can be cut: what a cable does.
public final class TCPProxy: Sendable {
    public enum Mode: Sendable {
        /// Everything passes.
        case open
        /// Connections are closed, new ones too.
        case cut
        /// Connections stay, nothing passes.
        case stalled
        /// Connections stay; what the program says arrives, and no answer comes back.
        case deaf
    }

    fileprivate struct End {
        let channel: any Channel
        let facesServer: Bool

        func set(_ mode: Mode) {
            switch mode {
            // Without a read of our own: one that is asked for before the channel is active is never done, and bars all later ones.
            case .open: _ = channel.setOption(.autoRead, value: true)
            case .cut: channel.close(promise: nil)
            case .stalled: _ = channel.setOption(.autoRead, value: false)
            case .deaf: _ = channel.setOption(.autoRead, value: !facesServer)
            }
        }
    }

    fileprivate struct State {
        var mode = Mode.open
        var channels: [ObjectIdentifier: End] = [:]
    }

    /// Where the program connects to.
    public let port: Int
    private let listener: any Channel
    private let state: Relays

    fileprivate final class Relays: Sendable {
        fileprivate let state = Mutex(State())
    }

    /// Listens on a free port and relays to `target` on 127.0.0.1.
    public static func start(to target: Int) async throws -> TCPProxy {
        let relays = Relays()
        // Everything on one loop: the two ends of a relay may touch each other.
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let listener = try await ServerBootstrap(group: loop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { channel in relays.join(channel, to: target) }
            .bind(host: "127.0.0.1", port: 0).get()
        guard let port = listener.localAddress?.port else { throw TestSupportError(.system, "a proxy without a port") }
        return TCPProxy(port: port, listener: listener, state: relays)
    }

    private init(port: Int, listener: any Channel, state: Relays) {
        self.port = port
        self.listener = listener
        self.state = state
    }

    deinit { stop() }

    public func set(_ mode: Mode) { state.set(mode) }

    public func stop() {
        listener.close(promise: nil)
        state.set(.cut)
    }
}

extension TCPProxy.Relays {
    fileprivate func set(_ mode: TCPProxy.Mode) {
        let ends = state.withLock { state in
            state.mode = mode
            return Array(state.channels.values)
        }
        for end in ends { end.set(mode) }
    }

    /// Connects a program's connection with one to the server. Nothing is read before both are there.
    fileprivate func join(_ channel: any Channel, to target: Int) -> EventLoopFuture<Void> {
        guard state.withLock({ $0.mode }) != .cut else { return channel.close() }
        return ClientBootstrap(group: channel.eventLoop)
            .channelOption(.autoRead, value: false)
            .connect(host: "127.0.0.1", port: target)
            .flatMapThrowing { other in
                try channel.pipeline.syncOperations.addHandler(Relay(to: other))
                try other.pipeline.syncOperations.addHandler(Relay(to: channel))
                self.add(TCPProxy.End(channel: channel, facesServer: false))
                self.add(TCPProxy.End(channel: other, facesServer: true))
            }
    }

    private func add(_ end: TCPProxy.End) {
        let id = ObjectIdentifier(end.channel)
        let mode = state.withLock { state in
            state.channels[id] = end
            return state.mode
        }
        end.channel.closeFuture.whenComplete { _ in self.state.withLock { _ = $0.channels.removeValue(forKey: id) } }
        end.set(mode)
    }
}

/// Hands on what it reads, and the end.
private final class Relay: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let other: any Channel

    init(to other: any Channel) { self.other = other }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { other.writeAndFlush(unwrapInboundIn(data), promise: nil) }

    func channelInactive(context: ChannelHandlerContext) {
        other.close(promise: nil)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
