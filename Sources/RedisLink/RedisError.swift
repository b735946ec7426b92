/// Why a command, a connection or a configuration failed.
public struct RedisError: Error, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// A URL, an argument or a limit of this library; the message names what to change.
        case invalidConfiguration
        /// No connection within the time a command may wait for one. The command did not run.
        case unreachable
        /// Redis refused the user, the password or the right to run the command.
        case authentication
        /// The connection broke while the command was under way.
        case connectionLost
        /// No reply by the deadline; the connection was closed.
        case timeout
        /// Bytes that are not RESP2, or a reply beyond a limit; the connection was closed.
        case protocolViolation
        /// The client or subscriber has ended, or its `run()` was never started.
        case closed
        /// A named bound of commands or channels under way is reached.
        case tooManyPending
        /// The task that waited was cancelled.
        case cancelled
        /// NOSCRIPT
        case noScript
        /// OOM: `maxmemory` is reached and the policy evicts nothing.
        case outOfMemory
        /// READONLY, MISCONF, NOREPLICAS: this server takes no writes now.
        case readOnly
        /// LOADING, MASTERDOWN, CLUSTERDOWN, TRYAGAIN: it will answer later.
        case loading
        /// BUSY: a script or function runs too long.
        case busy
        /// WRONGTYPE
        case wrongType
        /// Any other error reply; the message is the server's.
        case server
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

    public var description: String { "redis \(code.rawValue): \(message)" }

    func mayHaveRun(_ value: Bool) -> RedisError {
        var copy = self
        copy.mayHaveRun = value
        return copy
    }
}

extension RedisError {
    /// What an error reply means. The first word decides; before Redis 7 an error inside a script is wrapped into
    /// `ERR Error running script …: -WORD text`.
    ///
    /// A script may have written before it failed, so every error that comes from inside one `mayHaveRun`.
    public init(serverReply text: String) {
        self.init(serverReply: text, textMax: RedisLimits().errorTextMax)
    }

    init(serverReply text: String, textMax: Int) {
        let shown = text.utf8.count > textMax ? String(text.prefix(textMax)) + "…" : text
        let word = text.prefix { $0 != " " && $0 != ":" }
        let isWrappedScriptError = word == "ERR" && text.contains("script")
        let isFromScript = isWrappedScriptError || text.contains(" script: ") || text.contains("@user_script")
        if let code = Self.code(of: word) {
            self.init(code, Self.advice(for: code, shown), mayHaveRun: isFromScript)
        } else if isWrappedScriptError, let inner = Self.wrapped.first(where: { text.contains(" -\($0) ") }),
            let code = Self.code(of: inner)
        {
            self.init(code, Self.advice(for: code, shown), mayHaveRun: true)
        } else {
            self.init(.server, shown, mayHaveRun: true)
        }
    }

    private static let wrapped: [Substring] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS", "WRONGTYPE", "NOPERM"]

    private static func code(of word: Substring) -> Code? {
        switch word {
        case "NOSCRIPT": .noScript
        case "OOM": .outOfMemory
        case "READONLY", "MISCONF", "NOREPLICAS": .readOnly
        case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN": .loading
        case "BUSY", "UNKILLABLE": .busy
        case "WRONGTYPE": .wrongType
        case "NOAUTH", "WRONGPASS", "NOPERM", "DENIED": .authentication
        default: nil
        }
    }

    private static func advice(for code: Code, _ text: String) -> String {
        switch code {
        case .authentication: "\(text) (check the user, the password and the ACL named by the Redis URL)"
        case .outOfMemory: "\(text) (raise the server's maxmemory)"
        default: text
        }
    }
}
