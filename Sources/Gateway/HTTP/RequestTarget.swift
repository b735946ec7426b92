/// The target of a request line, split and percent-decoded (RFC 9112 §3.2, RFC 3986 §3).
struct RequestTarget: Sendable, Hashable {
    /// Path segments, decoded; the root path has none. An encoded slash stays inside its segment.
    let segments: [String]
    /// Parameters of the query in order, decoded; `+` is a space.
    let query: [QueryItem]
    /// Of an absolute-form target: the authority, which then stands for `Host`.
    let authority: String?

    struct QueryItem: Sendable, Hashable {
        let name: String
        let value: String
    }

    /// Throws `.badRequest` naming what cannot be read, `.uriTooLong`.
    init(_ text: String, limits: GatewayLimits) throws(GatewayError) {
        guard text.utf8.count <= limits.targetBytes else {
            throw GatewayError(.uriTooLong, "the request target has more than \(limits.targetBytes) bytes")
        }
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw GatewayError(.badRequest, "the request target holds a character that must be percent-encoded")
        }
        var rest = text[...]
        var authority: String?
        for scheme in ["http://", "https://"] where rest.lowercased().hasPrefix(scheme) {
            rest = rest.dropFirst(scheme.count)
            let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
            authority = String(rest[..<end])
            rest = rest[end...]
        }
        self.authority = authority
        // A fragment is never sent; what stands there anyway is not part of the path.
        rest = rest.prefix { $0 != "#" }
        let path = rest.prefix { $0 != "?" }
        guard path.first == "/" || (path.isEmpty && authority != nil) else {
            throw GatewayError(.badRequest, "the request target must begin with '/'")
        }
        segments = try Self.segments(path)
        query = try Self.items(rest.dropFirst(path.count).dropFirst(), limit: limits.queryParameters)
    }

    private static func segments(_ path: Substring) throws(GatewayError) -> [String] {
        var segments: [String] = []
        for part in path.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
            guard let segment = PercentEncoding.decode(part, plusIsSpace: false) else {
                throw GatewayError(.badRequest, "the path holds a broken percent-encoding or bytes that are not UTF-8")
            }
            segments.append(segment)
        }
        // `/v1/jobs/` is not `/v1/jobs`; only the root has an empty last segment.
        return segments == [""] ? [] : segments
    }

    private static func items(_ text: Substring, limit: Int) throws(GatewayError) -> [QueryItem] {
        var items: [QueryItem] = []
        for pair in text.split(separator: "&") {
            guard items.count < limit else { throw GatewayError(.badRequest, "the query has more than \(limit) parameters") }
            let name = pair.prefix { $0 != "=" }
            let value = pair.dropFirst(name.count).dropFirst()
            guard let name = PercentEncoding.decode(name, plusIsSpace: true), let value = PercentEncoding.decode(value, plusIsSpace: true)
            else { throw GatewayError(.badRequest, "the query holds a broken percent-encoding or bytes that are not UTF-8") }
            items.append(QueryItem(name: name, value: value))
        }
        return items
    }
}

enum PercentEncoding {
    /// Nil when an escape is broken or the bytes are not UTF-8.
    static func decode(_ text: Substring, plusIsSpace: Bool) -> String? {
        let needsWork = text.utf8.contains { $0 == UInt8(ascii: "%") || (plusIsSpace && $0 == UInt8(ascii: "+")) }
        guard needsWork else { return String(text) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "%"):
                guard let high = rest.popFirst().flatMap(JSONChecker.hexDigit), let low = rest.popFirst().flatMap(JSONChecker.hexDigit)
                else {
                    return nil
                }
                bytes.append(high << 4 | low)
            case UInt8(ascii: "+") where plusIsSpace: bytes.append(0x20)
            default: bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }

    /// Everything but RFC 3986's unreserved characters becomes `%XX`.
    static func encode(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var out: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                out.append(byte)
            default: out += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
