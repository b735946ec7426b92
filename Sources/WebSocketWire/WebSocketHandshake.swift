public import NIOCore

/// The HTTP side of opening a WebSocket (RFC 6455 §4).
public enum WebSocketHandshake {
    /// `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key`.
    public static func accept(forKey key: String) -> String {
        Base64.encode(SHA1.digest(Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8)))
    }

    /// A key is 16 random bytes in base64.
    public static func isValidKey(_ key: String) -> Bool { Base64.isSixteenBytes(key) }

    /// A fresh key for a client.
    public static func makeKey(using generator: inout some RandomNumberGenerator) -> String {
        Base64.encode((0..<16).map { _ in UInt8.random(in: 0...255, using: &generator) })
    }

    /// The server's 101 answer, head and empty line. Values must be free of CR and LF: whoever passes a client's text checks it.
    public static func response(key: String, subprotocol: String? = nil, headers: [(String, String)] = []) -> ByteBuffer {
        var head = ByteBuffer()
        head.writeString("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n")
        head.writeString("sec-websocket-accept: \(accept(forKey: key))\r\n")
        if let subprotocol { head.writeString("sec-websocket-protocol: \(subprotocol)\r\n") }
        for (name, value) in headers { head.writeString("\(name): \(value)\r\n") }
        head.writeString("\r\n")
        return head
    }

    /// A client's request for `path` (with query) on `host` (with port).
    public static func request(
        host: String,
        path: String,
        key: String,
        subprotocols: [String] = [],
        headers: [(String, String)] = []
    ) -> ByteBuffer {
        var head = ByteBuffer()
        head.writeString("GET \(path) HTTP/1.1\r\nhost: \(host)\r\nupgrade: websocket\r\nconnection: upgrade\r\n")
        head.writeString("sec-websocket-version: 13\r\nsec-websocket-key: \(key)\r\n")
        if !subprotocols.isEmpty { head.writeString("sec-websocket-protocol: \(subprotocols.joined(separator: ", "))\r\n") }
        for (name, value) in headers { head.writeString("\(name): \(value)\r\n") }
        head.writeString("\r\n")
        return head
    }
}

/// Reads a server's answer to `WebSocketHandshake.request`, in pieces of any size.
public struct WebSocketClientHandshake: Sendable {
    /// The connection is a WebSocket now; `leftover` are the first bytes behind the head.
    public struct Accepted: Sendable {
        public let subprotocol: String?
        public let leftover: ByteBuffer
    }

    private let key: String
    private var buffer = ByteBuffer()

    public init(key: String) { self.key = key }

    /// Nil until the head is complete. Throws `.handshakeRefused` with the server's status line.
    public mutating func receive(_ bytes: ByteBuffer) throws(WebSocketError) -> Accepted? {
        buffer.writeImmutableBuffer(bytes)
        guard let end = buffer.readableBytesView.firstIndexOfEmptyLine() else {
            guard buffer.readableBytes <= WebSocketLimits.responseHeadBytes else {
                throw WebSocketError(.handshakeRefused, "the answer's head has more than \(WebSocketLimits.responseHeadBytes) bytes")
            }
            return nil
        }
        let head = buffer.readString(length: end - buffer.readerIndex) ?? ""
        buffer.moveReaderIndex(forwardBy: 4)
        var lines = head.split(separator: "\r\n", omittingEmptySubsequences: false)[...]
        let status = lines.popFirst() ?? ""
        guard status.hasPrefix("HTTP/1.1 101") else { throw WebSocketError(.handshakeRefused, "answered `\(status)`") }
        let fields = Self.fields(lines)
        guard fields["upgrade"]?.lowercased() == "websocket", fields["connection"]?.lowercased().contains("upgrade") == true else {
            throw WebSocketError(.handshakeRefused, "the answer does not upgrade to websocket")
        }
        guard fields["sec-websocket-accept"] == WebSocketHandshake.accept(forKey: key) else {
            throw WebSocketError(.handshakeRefused, "sec-websocket-accept does not belong to the key")
        }
        return Accepted(subprotocol: fields["sec-websocket-protocol"], leftover: buffer.slice())
    }

    private static func fields(_ lines: ArraySlice<Substring>) -> [String: String] {
        var fields: [String: String] = [:]
        for line in lines {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
            fields[line[..<colon].lowercased()] = String(value)
        }
        return fields
    }
}

extension ByteBufferView {
    /// Where the CRLF CRLF that ends an HTTP head begins.
    fileprivate func firstIndexOfEmptyLine() -> Index? {
        guard count >= 4 else { return nil }
        let mark: [UInt8] = [13, 10, 13, 10]
        return (startIndex...(endIndex - 4)).first { index in self[index..<index + 4].elementsEqual(mark) }
    }
}
