import NIOCore
import NIOPosix

/// The one place that opens connections to Redis: a TLS handler would be added to the pipeline here, in front of the handshake.
struct Connector: Sendable {
    let configuration: RedisConfiguration

    /// A connection on `eventLoop` that has finished its handshake and has no handler yet.
    ///
    /// The future completes on `eventLoop`: a callback that adds a handler at once misses nothing. Fails with ``RedisError`` only.
    func connect(on eventLoop: any EventLoop) -> EventLoopFuture<any Channel> {
        let handshake: Handshake
        do throws(RedisError) {
            handshake = try Handshake(configuration)
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
        let configuration = configuration
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(TimeAmount(configuration.connectTimeout))
            .channelOption(.socketOption(.so_keepalive), value: 1)
        let connected =
            switch configuration.address {
            case .tcp(let host, let port): bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        return
            connected
            .flatMap { channel in
                // Not in the channel's initialiser: a host with two addresses runs that for each of them.
                let done = channel.eventLoop.makePromise(of: Void.self)
                let handler = HandshakeHandler(handshake, configuration: configuration, promise: done)
                do {
                    try channel.pipeline.syncOperations.addHandler(handler)
                } catch {
                    done.fail(error)
                }
                return done.futureResult.map { channel }
            }
            .flatMapErrorThrowing { error in throw Self.named(configuration.address, error) }
    }

    private static func named(_ address: RedisConfiguration.Address, _ error: any Error) -> RedisError {
        guard var error = error as? RedisError else { return unreachable(address, error) }
        if !error.message.contains("\(address)") { error.message = "Redis at \(address): \(error.message)" }
        return error
    }

    private static func unreachable(_ address: RedisConfiguration.Address, _ error: any Error) -> RedisError {
        let reason =
            switch error {
            case let error as NIOConnectionError:
                error.connectionErrors.first.map { text($0.error) }
                    ?? (error.dnsAError ?? error.dnsAAAAError).map { "host name not found (\(text($0)))" } ?? "no address"
            default: text(error)
            }
        return RedisError(.unreachable, "cannot connect to Redis at \(address): \(reason); check the Redis URL and that Redis is running")
    }

    private static func text(_ error: any Error) -> String {
        switch error {
        case let error as IOError: error.description
        case ChannelError.connectTimeout: "no answer in time"
        default: "\(error)"
        }
    }
}
