/// Where Redis is and how to talk to it.
public struct RedisConfiguration: Sendable {
    public enum Address: Sendable, Hashable, CustomStringConvertible {
        case tcp(host: String, port: Int)
        case unix(path: String)

        /// For messages and logs; holds no secret.
        public var description: String {
            switch self {
            case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            case .unix(let path): "unix:\(path)"
            }
        }
    }

    public static let defaultPort = 6379

    public var address: Address
    public var username: String?
    public var password: String?
    public var database: Int
    /// Shown by `CLIENT LIST`; printable ASCII without blanks, as Redis wants it.
    public var clientName: String
    /// Pipelined connections that share the commands of one client.
    public var poolSize: Int
    /// For the connection and its handshake, each.
    public var connectTimeout: Duration = .seconds(2)
    /// From handing a command over to its reply. A command may still have run when it is exceeded.
    public var commandTimeout: Duration = .seconds(3)
    public var limits = RedisLimits()

    public init(
        address: Address,
        username: String? = nil,
        password: String? = nil,
        database: Int = 0,
        clientName: String = "headway",
        poolSize: Int = 2
    ) {
        self.address = address
        self.username = username
        self.password = password
        self.database = database
        self.clientName = clientName
        self.poolSize = poolSize
    }
}

extension RedisConfiguration: CustomStringConvertible {
    /// Without user and password, so that a configuration may be logged.
    public var description: String { "\(address)/\(database)" }
}
