// TEMPORARY stub of the public surface; replaced room by room.
public import Logging
public import NIOCore

public enum RESPValue: Sendable, Hashable {
    case null
    case integer(Int64)
    case status(String)
    case bulk(ByteBuffer)
    case error(String)
    indirect case array([RESPValue])
}
extension RESPValue {
    public var int: Int? { nil }
    public var string: String? { nil }
    public var buffer: ByteBuffer? { nil }
    public var array: [RESPValue]? { nil }
    public var isNull: Bool { false }
}

public struct RedisError: Error, Sendable {
    public enum Code: String, Sendable {
        case invalidConfiguration, unreachable, authentication, connectionLost, timeout, protocolViolation, closed, tooManyPending
        case noScript, outOfMemory, readOnly, loading, busy, wrongType, server
    }
    public var code: Code
    public var message: String
    /// False when the command certainly did not run.
    public var mayHaveRun: Bool
    public init(_ code: Code, _ message: String, mayHaveRun: Bool = false) {
        self.code = code
        self.message = message
        self.mayHaveRun = mayHaveRun
    }
}

public struct RedisConfiguration: Sendable {
    public enum Address: Sendable, Hashable { case tcp(host: String, port: Int), unix(path: String) }
    public var address: Address
    public var username: String?
    public var password: String?
    public var database: Int
    public var clientName: String
    public var poolSize: Int
    public var connectTimeout: Duration = .seconds(2)
    public var commandTimeout: Duration = .seconds(3)
    public init(address: Address, username: String? = nil, password: String? = nil, database: Int = 0, clientName: String = "headway", poolSize: Int = 2) {
        self.address = address
        self.username = username
        self.password = password
        self.database = database
        self.clientName = clientName
        self.poolSize = poolSize
    }
    /// `redis://[user:pass@]host[:port][/db]` or `unix:///path[?db=N&password=…]`
    public init(url: String) throws(RedisError) { fatalError() }
}

public struct RedisScript: Sendable, Hashable {
    public let name: String
    public let source: String
    /// lower-case hex SHA-1 of `source`, as EVALSHA wants it
    public let sha1: String
    public init(name: String, source: String, sha1: String) {
        self.name = name
        self.source = source
        self.sha1 = sha1
    }
}

public enum RedisArgument: Sendable, ExpressibleByStringLiteral {
    case string(String), int(Int), buffer(ByteBuffer)
    public init(stringLiteral value: String) { self = .string(value) }
}

public final class RedisClient: Sendable {
    public init(configuration: RedisConfiguration, eventLoopGroup: any EventLoopGroup, logger: Logger) { fatalError() }
    public func run() async throws { fatalError() }
    public func send(_ command: [RedisArgument], timeout: Duration? = nil) async throws(RedisError) -> RESPValue { fatalError() }
    public func pipeline(_ commands: [[RedisArgument]], timeout: Duration? = nil) async throws(RedisError) -> [RESPValue] { fatalError() }
    public func evaluate(_ script: RedisScript, keys: [String], arguments: [RedisArgument], timeout: Duration? = nil) async throws(RedisError) -> RESPValue { fatalError() }
    public func blockingSend(_ command: [RedisArgument], timeout: Duration) async throws(RedisError) -> RESPValue { fatalError() }
    public var isConnected: Bool { false }
}

public protocol RedisSubscriberDelegate: AnyObject, Sendable {
    func redisMessage(channel: ByteBuffer, payload: ByteBuffer)
    func redisSubscriptionsLost()
    func redisSubscriptionsRestored()
    func redisReadComplete()
}

public final class RedisSubscriber: Sendable {
    public let eventLoop: any EventLoop
    public init(configuration: RedisConfiguration, eventLoop: any EventLoop, logger: Logger, delegate: any RedisSubscriberDelegate) { fatalError() }
    public func run() async throws { fatalError() }
    public func subscribe(_ channels: [String]) -> EventLoopFuture<Void> { fatalError() }
    public func unsubscribe(_ channels: [String]) { fatalError() }
    public func probe(timeout: Duration) async -> Bool { fatalError() }
    public var isConnected: Bool { false }
}
