// TEMPORARY stub of the public surface; replaced room by room.
public import Logging
public import NIOCore

public protocol RedisSubscriberDelegate: AnyObject, Sendable {
    func redisMessage(channel: ByteBuffer, payload: ByteBuffer)
    func redisSubscriptionsLost()
    func redisSubscriptionsRestored()
    func redisReadComplete()
}

public final class RedisSubscriber: Sendable {
    public let eventLoop: any EventLoop
    public init(configuration: RedisConfiguration, eventLoop: any EventLoop, logger: Logger, delegate: any RedisSubscriberDelegate) {
        fatalError()
    }
    public func run() async throws { fatalError() }
    public func subscribe(_ channels: [String]) -> EventLoopFuture<Void> { fatalError() }
    public func unsubscribe(_ channels: [String]) { fatalError() }
    public func probe(timeout: Duration) async -> Bool { fatalError() }
    public var isConnected: Bool { false }
}
