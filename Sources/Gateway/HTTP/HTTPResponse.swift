import JobStore
import NIOCore
import NIOHTTP1

/// What a route answers.
struct HTTPResponse: Sendable {
    enum Body: Sendable {
        case none
        case bytes(ByteBuffer)
        /// Part of an open file, sent in pieces as fast as the client takes them.
        case file(BlobFile, range: Range<Int>)

        var count: Int {
            switch self {
            case .none: 0
            case .bytes(let buffer): buffer.readableBytes
            case .file(_, let range): range.count
            }
        }
    }

    var status: Int
    /// Names in lower case. Values come from us or were checked: see `add`.
    var headers: [(name: String, value: String)] = []
    var body: Body = .none
    /// The connection is closed after this answer.
    var closes = false
    /// The answer waited for an event of the job; its duration says nothing about us.
    var isLongPoll = false

    init(status: Int, headers: [(name: String, value: String)] = [], body: Body = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// A JSON answer that nobody may keep.
    static func json(_ text: String, status: Int = 200) -> HTTPResponse { json(ByteBuffer(string: text), status: status) }

    static func json(_ bytes: ByteBuffer, status: Int = 200) -> HTTPResponse {
        HTTPResponse(
            status: status,
            headers: [("content-type", "application/json"), ("cache-control", "no-store")],
            body: .bytes(bytes)
        )
    }

    static func text(_ text: String, contentType: String = "text/plain; charset=utf-8") -> HTTPResponse {
        HTTPResponse(
            status: 200,
            headers: [("content-type", contentType), ("cache-control", "no-store")],
            body: .bytes(ByteBuffer(string: text))
        )
    }

    static func error(_ error: GatewayError, requestID: String) -> HTTPResponse {
        var text = "{\"error\":{\"code\":\"\(error.code.rawValue)\",\"message\":\(JSONText.quoted(error.message))"
        if let field = error.field { text += ",\"field\":\(JSONText.quoted(field))" }
        text += ",\"request_id\":\(JSONText.quoted(requestID))}}"
        var response = json(text, status: error.status)
        if let seconds = error.retryAfterSeconds { response.add("retry-after", String(seconds)) }
        // RFC 9110 §15.5.22, RFC 6455 §4.4: what to speak instead.
        if error.code == .upgradeRequired { response.headers += [("upgrade", "websocket"), ("sec-websocket-version", "13")] }
        return response
    }

    /// Adds a header. A value that could begin a line of its own loses those bytes: nothing a client sent may split an answer.
    mutating func add(_ name: String, _ value: String) {
        let isClean = value.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f }
        headers.append((name, isClean ? value : String(decoding: value.utf8.filter { $0 >= 0x20 && $0 != 0x7f }, as: UTF8.self)))
    }

    func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}
