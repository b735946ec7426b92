public import NIOCore

/// A Lua script that runs by `EVALSHA`, or by `EVAL` when the server does not have it yet.
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

/// One argument of a command; every byte is allowed in each of them.
public enum RedisArgument: Sendable, Hashable, ExpressibleByStringLiteral {
    case string(String)
    case int(Int)
    case buffer(ByteBuffer)

    public init(stringLiteral value: String) { self = .string(value) }
}
