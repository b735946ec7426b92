extension RedisConfiguration {
    /// `redis://[user:pass@]host[:port][/db]` or `unix:///path[?db=N&password=…&user=…]`; everything may be percent-encoded.
    ///
    /// Throws `.invalidConfiguration` with what to change; no message repeats a password.
    public init(url: String) throws(RedisError) {
        if let rest = url.dropping(prefix: "redis://") {
            try self.init(tcp: rest)
        } else if let rest = url.dropping(prefix: "unix://") {
            try self.init(unix: rest)
        } else if url.dropping(prefix: "rediss://") != nil {
            throw .url("rediss: TLS to Redis is not built in yet; use redis:// over a private network or a TLS tunnel")
        } else {
            throw .url("it must begin with redis:// or unix://, for example redis://127.0.0.1:6379/0")
        }
    }

    private init(tcp rest: Substring) throws(RedisError) {
        guard !rest.contains("?"), !rest.contains("#") else { throw .url("options after ? or # are not known for redis://") }
        let (authorityPart, path) = rest.split(atFirst: "/")
        // The last @: a user name may hold one that somebody forgot to encode, a host never does.
        let at = authorityPart.lastIndex(of: "@")
        let (host, port) = try Self.hostAndPort(at.map { authorityPart[authorityPart.index(after: $0)...] } ?? authorityPart)
        self.init(address: .tcp(host: host, port: port), database: try Self.database(path ?? ""))
        if let at {
            let (user, password) = authorityPart[..<at].split(atFirst: ":")
            username = try Self.decoded(user, "the user name").nonEmpty
            self.password = try Self.decoded(password ?? "", "the password").nonEmpty
            guard username == nil || self.password != nil else {
                throw .url("a user name without a password; write user:password@ or :password@")
            }
        }
    }

    private init(unix rest: Substring) throws(RedisError) {
        let (pathPart, query) = rest.split(atFirst: "?")
        let path = try Self.decoded(pathPart, "the path")
        guard path.hasPrefix("/"), path.utf8.count > 1 else { throw .url("unix:// wants an absolute path: unix:///run/redis.sock") }
        // sockaddr_un has 108 bytes, one of them for the final zero.
        guard path.utf8.count <= 107 else { throw .url("the path of a Unix socket may have at most 107 bytes") }
        self.init(address: .unix(path: path))
        for option in (query ?? "").split(separator: "&") {
            let (name, value) = option.split(atFirst: "=")
            switch name {
            case "db": database = try Self.database(value ?? "")
            case "password": password = try Self.decoded(value ?? "", "the password").nonEmpty
            case "user": username = try Self.decoded(value ?? "", "the user name").nonEmpty
            default: throw .url("unknown option \(name); unix:// knows db, user and password")
            }
        }
        guard username == nil || password != nil else { throw .url("a user name without a password") }
    }

    private static func hostAndPort(_ text: Substring) throws(RedisError) -> (String, Int) {
        var host = text
        var port: Substring?
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { throw .url("the bracket of the IPv6 address is not closed") }
            host = text[text.index(after: text.startIndex)..<end]
            let tail = text[text.index(after: end)...]
            guard tail.isEmpty || tail.first == ":" else { throw .url("only :port may follow the IPv6 address") }
            port = tail.isEmpty ? nil : tail.dropFirst()
        } else {
            (host, port) = text.split(atFirst: ":")
            if port?.contains(":") == true { throw .url("an IPv6 address needs brackets: redis://[::1]:6379") }
        }
        let name = try decoded(host, "the host")
        guard !name.isEmpty else { throw .url("the host is missing, for example redis://127.0.0.1:6379") }
        guard let port else { return (name, defaultPort) }
        guard let number = decimal(port), (1...65535).contains(number) else { throw .url("the port must be a number from 1 to 65535") }
        return (name, number)
    }

    private static func database(_ text: Substring) throws(RedisError) -> Int {
        if text.isEmpty { return 0 }
        guard let number = decimal(text) else { throw .url("the database must be a number, as in /0") }
        return number
    }

    /// Digits only (`Int` would also take a sign), and few enough for any Int.
    private static func decimal(_ text: Substring) -> Int? {
        guard (1...9).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int(text)
    }

    private static func decoded(_ text: Substring, _ what: String) throws(RedisError) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst()?.hexDigit, let low = rest.popFirst()?.hexDigit else {
                throw .url("\(what) has a % that is not followed by two hex digits; write % itself as %25")
            }
            bytes.append(high << 4 | low)
        }
        guard let result = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
            throw .url("\(what) is not UTF-8 text")
        }
        return result
    }
}

extension RedisError {
    fileprivate static func url(_ problem: String) -> RedisError { RedisError(.invalidConfiguration, "Redis URL: \(problem)") }
}

extension StringProtocol where SubSequence == Substring {
    fileprivate func dropping(prefix: String) -> Substring? {
        hasPrefix(prefix) ? dropFirst(prefix.count) : nil
    }

    fileprivate func split(atFirst separator: Character) -> (Substring, Substring?) {
        guard let index = firstIndex(of: separator) else { return (self[...], nil) }
        return (self[..<index], self[self.index(after: index)...])
    }
}

extension String {
    fileprivate var nonEmpty: String? { isEmpty ? nil : self }
}

extension UInt8 {
    fileprivate var hexDigit: UInt8? {
        switch self {
        case 48...57: self - 48
        case 65...70: self - 55
        case 97...102: self - 87
        default: nil
        }
    }
}
