import RedisLink

/// One Lua script as Redis runs it, for programs that talk to Redis themselves.
public struct StoreScript: Sendable, Hashable {
    public let name: String
    /// Whole text, shared parts included.
    public let source: String
    /// What EVALSHA names it by.
    public let sha1: String

    /// The first sentence that it says about itself.
    public var summary: String {
        let lines = source.split(separator: "\n")
        let start = lines.lastIndex { $0.hasPrefix("-- include:") }.map { $0 + 1 } ?? 0
        guard lines.indices.contains(start), lines[start].hasPrefix("-- ") else { return "" }
        return lines[start].dropFirst(3).split(separator: ".").first.map(String.init) ?? ""
    }
}

extension JobStore {
    /// Every script, by name. Their KEYS, ARGV and answers stand in their first lines and are part of the contract of docs/redis.md.
    public static var scripts: [StoreScript] {
        Scripts.all.map { StoreScript(name: $0.name, source: $0.source, sha1: $0.sha1) }.sorted { $0.name < $1.name }
    }
}
