public import Logging
public import NIOCore
import Synchronization

/// Receives what a ``RedisSubscriber`` hears: on its event loop, in order. Calls must not block.
public protocol RedisSubscriberDelegate: AnyObject, Sendable {
    /// One published message. Both buffers are slices of a buffer that is shared by the messages of one read (16 KiB or one
    /// larger message): copy what is kept long.
    func redisMessage(channel: ByteBuffer, payload: ByteBuffer)
    /// The connection that held the subscriptions is gone: from now on messages are missed. Called once per loss.
    func redisSubscriptionsLost()
    /// After a loss: every channel wanted at the reconnect is subscribed again. Messages between the two calls may be missing.
    func redisSubscriptionsRestored()
    /// A read of the socket has been delivered; a good moment to flush what its messages caused.
    func redisReadComplete()
}

/// Subscriptions on one connection of their own, restored by themselves after a loss.
///
/// The caller counts its own references: two `subscribe` of one channel are one subscription, and one `unsubscribe` ends it.
/// Only ``run()`` opens the connection; wishes may be stated before.
public final class RedisSubscriber: Sendable {
    public let eventLoop: any EventLoop
    private let core: NIOLoopBoundBox<SubscriberCore>
    private let connected: ConnectedFlag

    private final class ConnectedFlag: Sendable {
        let value = Atomic<Bool>(false)
    }

    /// - Parameter delegate: held strongly until ``run()`` returns.
    public convenience init(
        configuration: RedisConfiguration,
        eventLoop: any EventLoop,
        logger: Logger,
        delegate: any RedisSubscriberDelegate
    ) {
        self.init(
            configuration: configuration,
            eventLoop: eventLoop,
            logger: logger,
            delegate: delegate,
            random: { Double.random(in: 0...1) }
        )
    }

    /// - Parameter random: numbers in 0 ... 1 for the jitter of reconnecting.
    public init(
        configuration: RedisConfiguration,
        eventLoop: any EventLoop,
        logger: Logger,
        delegate: any RedisSubscriberDelegate,
        random: @escaping @Sendable () -> Double
    ) {
        self.eventLoop = eventLoop
        let flag = ConnectedFlag()
        connected = flag
        core = .makeBoxSendingValue(
            SubscriberCore(
                connector: Connector(configuration: configuration),
                eventLoop: eventLoop,
                logger: logger,
                delegate: delegate,
                random: random,
                onConnectedChange: { flag.value.store($0, ordering: .releasing) }
            ),
            eventLoop: eventLoop
        )
    }

    /// Keeps the connection until the task is cancelled; then pending subscriptions fail with `.closed`.
    public func run() async throws {
        try await eventLoop.submit { try self.core.value.start() }.get()
        // Only a cancellation ends it; an hour is as good as any other long time.
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3_600)) }
        try await eventLoop.flatSubmit { self.core.value.stop() ?? self.eventLoop.makeSucceededVoidFuture() }.get()
    }

    /// Completes, on ``eventLoop``, when the server has acknowledged every channel: what is published after that arrives.
    ///
    /// A loss of the connection does not fail it: it waits for the reconnect, at most `RedisLimits.subscribeTimeout` in all.
    /// When it fails with `.timeout` or `.unreachable` the channels are still wanted, and subscribed as soon as possible,
    /// until they are unsubscribed. When Redis refuses them (an ACL) they are dropped. A channel that is unsubscribed
    /// meanwhile counts as done.
    public func subscribe(_ channels: [String]) -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        if eventLoop.inEventLoop {
            core.value.subscribe(channels, promise)
        } else {
            eventLoop.execute { self.core.value.subscribe(channels, promise) }
        }
        return promise.futureResult
    }

    /// Takes effect in order with ``subscribe(_:)``; a few messages may still arrive.
    public func unsubscribe(_ channels: [String]) {
        if eventLoop.inEventLoop {
            core.value.unsubscribe(channels)
        } else {
            eventLoop.execute { self.core.value.unsubscribe(channels) }
        }
    }

    /// One `PING` over the subscription connection: true when it is answered within `timeout`.
    public func probe(timeout: Duration) async -> Bool {
        let promise = eventLoop.makePromise(of: Bool.self)
        eventLoop.execute { self.core.value.probe(promise, timeout: TimeAmount(timeout)) }
        return (try? await promise.futureResult.get()) ?? false
    }

    /// True while the connection is up (its subscriptions may still be on their way).
    public var isConnected: Bool { connected.value.load(ordering: .acquiring) }
}
