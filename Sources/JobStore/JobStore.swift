import NIOCore
public import RedisLink

/// The job queue and the progress of its jobs, in Redis: every change of a job is one Lua script, every read a plain command.
///
/// It holds a client, settings and the submits under way, and nothing that another process would have to know: any number of them use
/// the same store at once. Copies of a store share its submits.
public struct JobStore: Sendable {
    public let redis: RedisClient
    public let keys: Keys
    public let settings: StoreSettings
    let submits: SubmitBatcher

    /// Version of the key schema, stored in `headway:meta` and in every job's `v`.
    public static let schemaVersion = 1

    public init(redis: RedisClient, keys: Keys, settings: StoreSettings = .init()) {
        self.redis = redis
        self.keys = keys
        self.settings = settings
        submits = SubmitBatcher(redis: redis, keys: keys, settings: settings)
    }

    /// Checks that this Redis can be trusted with jobs, and that it holds the schema and partition count this process was
    /// configured for; both are written when the deployment is new.
    ///
    /// - Returns: what works but is worth a line in the log.
    /// - Throws: `.incompatible` naming what to change; `.unavailable` when Redis does not answer.
    public func prepare() async throws(StoreError) -> [StoreWarning] {
        let info = try await serverInfo()
        var warnings: [StoreWarning] = []
        let version = info["redis_version"] ?? "0"
        let numbers = version.split(separator: ".").map { Int($0) ?? 0 } + [0, 0]
        let needed = settings.useShardedPublish ? (7, 0) : (6, 2)
        guard (numbers[0], numbers[1]) >= needed else {
            throw StoreError(.incompatible, "Redis \(version) is too old: \(needed.0).\(needed.1) or newer is needed")
        }
        if info["role"] == "slave" {
            throw StoreError(.incompatible, "this Redis is a replica: give the address of its primary")
        }
        if let policy = info["maxmemory_policy"], policy != "noeviction", info["maxmemory"] != "0" {
            throw StoreError(
                .incompatible,
                "Redis evicts keys (maxmemory-policy \(policy)) and would lose jobs: set maxmemory-policy noeviction"
            )
        }
        if info["aof_enabled"] == "0" {
            warnings.append(StoreWarning(description: "Redis runs without append-only file: jobs do not survive its restart"))
        }
        try await checkMeta()
        return warnings
    }

    private func serverInfo() async throws(StoreError) -> [String: String] {
        let reply = try await command(["INFO"])
        var info: [String: String] = [:]
        for line in (reply.string ?? "").split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            info[String(line[..<colon])] = String(line[line.index(after: colon)...])
        }
        return info
    }

    private func checkMeta() async throws(StoreError) {
        _ = try await command(["HSETNX", .string(keys.meta), "v", .int(Self.schemaVersion)])
        _ = try await command(["HSETNX", .string(keys.meta), "partitions", .int(keys.partitions)])
        let found = try await command(["HMGET", .string(keys.meta), "v", "partitions"]).array ?? []
        guard found.count == 2, found[0].int == Self.schemaVersion else {
            let version = found.first?.string ?? "nothing"
            throw StoreError(
                .incompatible,
                "this Redis holds key schema \(version), this program speaks \(Self.schemaVersion): run a matching version or another prefix"
            )
        }
        guard found[1].int == keys.partitions else {
            throw StoreError(
                .incompatible,
                "this Redis was set up with \(found[1].string ?? "?") partitions, this process is configured for \(keys.partitions)"
            )
        }
    }

    // MARK: Plumbing shared by the verbs

    var verb: RedisArgument { settings.publishVerb }

    func command(_ arguments: [RedisArgument], timeout: Duration? = nil) async throws(StoreError) -> RESPValue {
        do {
            return try await redis.send(arguments, timeout: timeout)
        } catch {
            throw StoreError(error)
        }
    }

    func pipeline(_ commands: [[RedisArgument]]) async throws(StoreError) -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        do {
            return try await redis.pipeline(commands)
        } catch {
            throw StoreError(error)
        }
    }

    /// Runs a script and splits its answer into the status word and the rest.
    func run(_ script: RedisScript, keys: [String], _ arguments: [RedisArgument]) async throws(StoreError) -> ScriptReply {
        let reply: RESPValue
        do {
            reply = try await redis.evaluate(script, keys: keys, arguments: arguments)
        } catch {
            throw StoreError(error)
        }
        return try ScriptReply(script, reply)
    }
}

extension StoreSettings {
    var publishVerb: RedisArgument { useShardedPublish ? "SPUBLISH" : "PUBLISH" }

    /// Whether a script may touch the wake lists, which lie in a slot of their own.
    func reachesWakeLists(_ keys: Keys) -> Bool { keys.partitions == 1 || !useShardedPublish }
}

/// What a script answered: a status word, then values by position.
struct ScriptReply {
    let script: String
    let status: String
    /// The status is the first.
    let values: ArraySlice<RESPValue>

    init(_ script: RedisScript, _ reply: RESPValue) throws(StoreError) {
        guard let values = reply.array, let status = values.first?.string else {
            throw StoreError(.corrupt, "script \(script.name) answered something that is not a status")
        }
        self.init(script: script.name, status: status, values: values[...])
    }

    private init(script: String, status: String, values: ArraySlice<RESPValue>) {
        self.script = script
        self.status = status
        self.values = values
    }

    /// The answer of another script that follows the first status.
    func dropFirst() -> ScriptReply? {
        guard let status = value(1)?.string else { return nil }
        return ScriptReply(script: script, status: status, values: values.dropFirst())
    }

    private func value(_ index: Int) -> RESPValue? {
        let index = values.startIndex + index
        return values.indices.contains(index) ? values[index] : nil
    }

    /// The text at `index`, nil when absent or empty.
    func text(_ index: Int) -> String? {
        guard let text = value(index)?.string, !text.isEmpty else { return nil }
        return text
    }

    func buffer(_ index: Int) -> ByteBuffer? { value(index)?.buffer }

    func int(_ index: Int) -> Int? { value(index)?.int }

    var unexpected: StoreError { StoreError(.corrupt, "script \(script) answered '\(status)' with \(values.count) values") }
}

extension StoreError {
    /// What a failure of the link means for the caller of a verb.
    init(_ error: RedisError) {
        switch error.code {
        case .server where error.message.hasPrefix("HEADWAY "):
            self.init(.invalid, String(error.message.dropFirst("HEADWAY ".count)))
        case .authentication, .invalidConfiguration:
            self.init(.incompatible, error.message)
        case .outOfMemory:
            self.init(.unavailable, "Redis is full: raise maxmemory or free keys")
        case .readOnly:
            self.init(.unavailable, "Redis is read-only (a replica, or writes are stopped): \(error.message)", mayHaveRun: error.mayHaveRun)
        case .server, .wrongType, .noScript:
            self.init(.corrupt, error.message)
        default:
            self.init(.unavailable, error.message, mayHaveRun: error.mayHaveRun)
        }
    }
}
