import Glibc
import NIOCore
import NIOHTTP1
import Synchronization

/// Writes answers' heads as bytes.
///
/// Own code instead of `HTTPResponseEncoder`: head and body leave in one write, and the pipeline carries nothing but
/// `ByteBuffer` outwards, so that a session can take a connection over without a handler that expects another type.
struct ResponseWriter: Sendable {
    /// On every answer: nothing of ours is to be sniffed, framed or told to other sites.
    private static let common =
        "x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nx-frame-options: DENY\r\n"
    /// For everything but our own pages: it is data, and if a browser shows it, it may load and run nothing.
    private static let dataPolicy = "content-security-policy: default-src 'none'; frame-ancestors 'none'; sandbox\r\n"

    private let date = DateText()
    let nowMs: @Sendable () -> Int

    init(nowMs: @escaping @Sendable () -> Int) { self.nowMs = nowMs }

    /// The head of `response`, and the body when it is small enough to go along.
    func write(_ response: HTTPResponse, requestID: String, isHead: Bool, keepsAlive: Bool, allocator: ByteBufferAllocator) -> ByteBuffer {
        var body: ByteBuffer?
        if case .bytes(let bytes) = response.body, !isHead { body = bytes }
        var out = allocator.buffer(capacity: 512 + (body?.readableBytes ?? 0))
        out.writeString("HTTP/1.1 \(response.status) \(HTTPResponseStatus(statusCode: response.status).reasonPhrase)\r\n")
        out.writeString("date: \(date.text(unixMs: nowMs()))\r\n")
        // 204 and 304 have no body by definition (RFC 9110 §15.3.5, §15.4.5); a length of 0 on a 304 would be a lie.
        if response.status != 204, response.status != 304 { out.writeString("content-length: \(response.body.count)\r\n") }
        out.writeString(keepsAlive ? "connection: keep-alive\r\n" : "connection: close\r\n")
        out.writeString("x-request-id: \(requestID)\r\n")
        out.writeString(Self.common)
        if response.header("content-security-policy") == nil { out.writeString(Self.dataPolicy) }
        for (name, value) in response.headers { out.writeString("\(name): \(value)\r\n") }
        out.writeString("\r\n")
        if let body { out.writeImmutableBuffer(body) }
        return out
    }
}

/// The `Date` header's text, made once a second.
final class DateText: Sendable {
    private let cached = Mutex<(second: Int, text: String)>((-1, ""))

    func text(unixMs: Int) -> String {
        let second = unixMs / 1000
        return cached.withLock { cached in
            if cached.second != second { cached = (second, Self.format(second)) }
            return cached.text
        }
    }

    /// RFC 9110 §5.6.7, e.g. `Sun, 06 Nov 1994 08:49:37 GMT`.
    static func format(_ unixSeconds: Int) -> String {
        var seconds = time_t(unixSeconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(days[Int(parts.tm_wday)]), \(two(parts.tm_mday)) \(months[Int(parts.tm_mon)]) \(parts.tm_year + 1900) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) GMT"
    }
}
