import NIOHTTP1

/// Whom a request was meant for and which page sent it.
///
/// A gateway on loopback is reachable for every page its user's browser shows: a page of another origin can send requests, and
/// one that rebinds its own name to 127.0.0.1 could read the answers. `Host` and `Origin`, which pages cannot forge, tell them
/// apart. Forwarding headers (`X-Forwarded-…`, `Forwarded`) are never looked at: anybody may send them.
struct HostPolicy: Sendable {
    let isLoopback: Bool
    /// Lower case, as configured: with or without a port.
    let allowedHosts: Set<String>
    let allowedOrigins: Set<String>

    init(isLoopback: Bool, allowedHosts: [String], allowedOrigins: [String]) {
        self.isLoopback = isLoopback
        self.allowedHosts = Set(allowedHosts.map { $0.lowercased() })
        self.allowedOrigins = Set(allowedOrigins.map { $0.lowercased() })
    }

    /// Throws `.badRequest`, `.hostRefused` or `.originRefused`. Returns the origin when it is a foreign one that is allowed:
    /// its page needs CORS headers to read the answer.
    func check(_ head: HTTPRequestHead, authority: String?) throws(GatewayError) -> String? {
        let hosts = head.headers["host"]
        guard hosts.count <= 1, let host = authority ?? hosts.first ?? (head.version.minor == 0 ? "" : nil) else {
            throw GatewayError(.badRequest, "exactly one Host header is needed")
        }
        let named = host.lowercased()
        guard isOurs(named) else {
            throw GatewayError(
                .hostRefused,
                "this gateway does not answer for the given Host: use its own address, or add it to allowed_hosts"
            )
        }
        let origins = head.headers["origin"]
        guard let origin = origins.first?.lowercased() else { return nil }
        guard origins.count == 1 else { throw GatewayError(.badRequest, "at most one Origin header is allowed") }
        if !named.isEmpty, Self.authority(ofOrigin: origin) == Self.withoutDefaultPort(named, origin: origin) { return nil }
        guard allowedOrigins.contains(origin) || allowedOrigins.contains("*") else {
            throw GatewayError(.originRefused, "pages of this origin may not use this gateway: add it to allowed_origins")
        }
        return origins[0]
    }

    private func isOurs(_ host: String) -> Bool {
        let (name, isValid) = Self.name(ofHost: host)
        if allowedHosts.contains(host) || allowedHosts.contains(name) { return true }
        if isLoopback { return isValid && Self.isLoopbackName(name) }
        return allowedHosts.isEmpty
    }

    /// The host without its port; `[::1]:80` gives `::1`.
    static func name(ofHost host: String) -> (name: String, isValid: Bool) {
        var name = host[...]
        var port = ""[...]
        if name.first == "[" {
            guard let end = name.firstIndex(of: "]") else { return (host, false) }
            port = name[name.index(after: end)...]
            name = name[name.index(after: name.startIndex)..<end]
        } else if let colon = name.firstIndex(of: ":") {
            port = name[colon...]
            name = name[..<colon]
        }
        let isPort = port.isEmpty || (port.first == ":" && port.dropFirst().utf8.allSatisfy { (0x30...0x39).contains($0) })
        return (String(name), isPort)
    }

    /// `localhost`, anything below it, `127.0.0.0/8`, `::1`.
    static func isLoopbackName(_ name: String) -> Bool {
        if name == "localhost" || name.hasSuffix(".localhost") || name == "::1" { return true }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { $0.utf8.count <= 3 && UInt8($0) != nil }
    }

    /// `https://a.example:8443` → `a.example:8443`; nil for `null` and everything that is no web origin.
    private static func authority(ofOrigin origin: String) -> String? {
        for scheme in ["http://", "https://"] where origin.hasPrefix(scheme) {
            return withoutDefaultPort(String(origin.dropFirst(scheme.count)), origin: origin)
        }
        return nil
    }

    /// Browsers leave the default port out of both headers, other clients may not.
    private static func withoutDefaultPort(_ host: String, origin: String) -> String {
        let port = origin.hasPrefix("https:") ? ":443" : ":80"
        return host.hasSuffix(port) ? String(host.dropLast(port.count)) : host
    }
}
