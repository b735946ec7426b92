public import NIOCore

/// Turns the bytes of one WebSocket connection into messages, whatever the pieces they arrive in.
///
/// Not thread-safe: one value per connection, owned by its event loop. Holds at most one unfinished frame and one unfinished
/// message; both are bounded by `maximumMessageBytes`, which is checked against the declared length before anything is kept.
public struct WebSocketParser: Sendable {
    /// Which end reads: a server demands masked frames, a client unmasked ones (RFC 6455 §5.1).
    public enum Role: Sendable { case server, client }

    public enum Message: Sendable, Equatable {
        /// Valid UTF-8.
        case text(ByteBuffer)
        case binary(ByteBuffer)
        case ping(ByteBuffer)
        case pong(ByteBuffer)
        /// The peer closes; what follows it is ignored. No code: the frame was empty.
        case close(WebSocketCloseCode?, reason: String)
    }

    private struct Header {
        var opcode: UInt8
        var isFinal: Bool
        var mask: UInt32?
        var length: Int
        var size: Int
    }

    private let role: Role
    private let maximumMessageBytes: Int
    private var buffered: ByteBuffer?
    private var message: ByteBuffer?
    private var isText = false
    private var utf8 = UTF8Validator()
    private var isClosed = false

    public init(role: Role, maximumMessageBytes: Int) {
        self.role = role
        self.maximumMessageBytes = maximumMessageBytes
    }

    /// Takes more bytes of the connection; call `next` until it answers nil.
    public mutating func append(_ bytes: ByteBuffer) {
        guard !isClosed, bytes.readableBytes > 0 else { return }
        guard var known = buffered else {
            buffered = bytes
            return
        }
        // Out of the optional while it grows, so that the storage is unique and not copied.
        buffered = nil
        known.discardReadBytes()
        known.writeImmutableBuffer(bytes)
        buffered = known
    }

    /// The next complete message, or nil until more bytes come. After an error the connection cannot be read any further.
    public mutating func next() throws(WebSocketError) -> Message? {
        while !isClosed, let header = try readHeader() {
            guard let available = buffered?.readableBytes, available >= header.size + header.length else { return nil }
            let payload = takePayload(header)
            if header.opcode >= 0x8 { return try control(header, payload) }
            if let whole = try data(header, payload) { return whole }
        }
        return nil
    }

    private func readHeader() throws(WebSocketError) -> Header? {
        guard let buffer = buffered, buffer.readableBytes >= 2 else { return nil }
        let start = buffer.readerIndex
        guard let first: UInt8 = buffer.getInteger(at: start), let second: UInt8 = buffer.getInteger(at: start + 1) else { return nil }
        guard first & 0x70 == 0 else { throw WebSocketError(.protocolViolation, "reserved bits are set and no extension was agreed") }
        let opcode = first & 0x0F
        let isFinal = first & 0x80 != 0
        let isMasked = second & 0x80 != 0
        guard isMasked == (role == .server) else {
            throw WebSocketError(
                .protocolViolation,
                role == .server ? "a client's frame must be masked" : "a server's frame must not be masked"
            )
        }
        var length = Int(second & 0x7F)
        try check(opcode, isFinal: isFinal, length: length)
        var size = 2
        if length == 126 {
            guard let long: UInt16 = buffer.getInteger(at: start + 2) else { return nil }
            guard long >= 126 else { throw WebSocketError(.protocolViolation, "the length is not in its shortest form") }
            (length, size) = (Int(long), 4)
        } else if length == 127 {
            guard let long: UInt64 = buffer.getInteger(at: start + 2) else { return nil }
            guard long >= 0x1_0000, long <= UInt64(Int64.max) else {
                throw WebSocketError(.protocolViolation, "the length is not in its shortest form or has its top bit set")
            }
            (length, size) = (Int(long), 10)
        }
        if opcode < 0x8, length > maximumMessageBytes - (message?.readableBytes ?? 0) {
            throw WebSocketError(.messageTooBig, "a message may have \(maximumMessageBytes) bytes")
        }
        guard isMasked else { return Header(opcode: opcode, isFinal: isFinal, mask: nil, length: length, size: size) }
        // Kept in memory order: byte i of the payload is masked with byte i mod 4.
        guard let mask: UInt32 = buffer.getInteger(at: start + size, endianness: .host) else { return nil }
        return Header(opcode: opcode, isFinal: isFinal, mask: mask, length: length, size: size + 4)
    }

    /// What the first two bytes already forbid.
    private func check(_ opcode: UInt8, isFinal: Bool, length: Int) throws(WebSocketError) {
        switch opcode {
        case 0x0:
            guard message != nil else { throw WebSocketError(.protocolViolation, "a continuation without a beginning") }
        case 0x1, 0x2:
            guard message == nil else { throw WebSocketError(.protocolViolation, "a new message inside a fragmented one") }
        case 0x8, 0x9, 0xA:
            guard isFinal else { throw WebSocketError(.protocolViolation, "a control frame must not be fragmented") }
            guard length <= WebSocketLimits.controlPayloadBytes else {
                throw WebSocketError(.protocolViolation, "a control frame may have \(WebSocketLimits.controlPayloadBytes) bytes")
            }
        default:
            throw WebSocketError(.protocolViolation, "unknown opcode \(opcode)")
        }
    }

    private mutating func takePayload(_ header: Header) -> ByteBuffer {
        guard var source = buffered else { return ByteBuffer() }
        buffered = nil
        source.moveReaderIndex(forwardBy: header.size)
        var payload = ByteBuffer()
        if header.length > 0, let slice = source.readSlice(length: header.length) {
            payload = slice.unmasked(with: header.mask ?? 0)
        }
        if source.readableBytes > 0 { buffered = source }
        return payload
    }

    private mutating func data(_ header: Header, _ payload: ByteBuffer) throws(WebSocketError) -> Message? {
        if header.opcode != 0x0 {
            isText = header.opcode == 0x1
            utf8 = UTF8Validator()
        }
        if isText, !payload.withUnsafeReadableBytes({ utf8.accept($0) }) {
            throw WebSocketError(.invalidUTF8, "a text message must be UTF-8")
        }
        var whole = payload
        if var begun = message {
            message = nil
            begun.writeImmutableBuffer(payload)
            whole = begun
        }
        guard header.isFinal else {
            message = whole
            return nil
        }
        guard isText else { return .binary(whole) }
        guard utf8.isComplete else { throw WebSocketError(.invalidUTF8, "a text message ends inside a character") }
        return .text(whole)
    }

    private mutating func control(_ header: Header, _ payload: ByteBuffer) throws(WebSocketError) -> Message {
        switch header.opcode {
        case 0x9: return .ping(payload)
        case 0xA: return .pong(payload)
        default:
            isClosed = true
            buffered = nil
            message = nil
            return try close(payload)
        }
    }

    private func close(_ payload: ByteBuffer) throws(WebSocketError) -> Message {
        var payload = payload
        guard payload.readableBytes > 0 else { return .close(nil, reason: "") }
        guard let raw: UInt16 = payload.readInteger() else {
            throw WebSocketError(.protocolViolation, "a close frame holds nothing or at least two bytes")
        }
        let code = WebSocketCloseCode(rawValue: raw)
        guard code.isSendable else { throw WebSocketError(.protocolViolation, "close code \(raw) must not be sent") }
        var validator = UTF8Validator()
        guard payload.withUnsafeReadableBytes({ validator.accept($0) }), validator.isComplete else {
            throw WebSocketError(.invalidUTF8, "a close reason must be UTF-8")
        }
        return .close(code, reason: String(buffer: payload))
    }
}

extension ByteBuffer {
    /// A copy of the readable bytes, XORed with the mask (in memory order; 0 copies only).
    func unmasked(with mask: UInt32) -> ByteBuffer {
        let count = readableBytes
        var out = ByteBufferAllocator().buffer(capacity: count)
        out.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { target in
            withUnsafeReadableBytes { source in
                let wide = UInt64(mask) | UInt64(mask) << 32
                var index = 0
                while index + 8 <= count {
                    let word = source.loadUnaligned(fromByteOffset: index, as: UInt64.self) ^ wide
                    target.storeBytes(of: word, toByteOffset: index, as: UInt64.self)
                    index += 8
                }
                withUnsafeBytes(of: mask) { key in
                    while index < count {
                        target[index] = source[index] ^ key[index & 3]
                        index += 1
                    }
                }
            }
            return count
        }
        return out
    }
}
