public import NIOCore

/// Writes WebSocket frames (RFC 6455 §5.2).
///
/// A server's frame does not depend on the connection, so one buffer is made per event and shared by every socket.
public enum WebSocketFrame {
    public enum Opcode: UInt8, Sendable {
        case continuation = 0x0
        case text = 0x1
        case binary = 0x2
        case close = 0x8
        case ping = 0x9
        case pong = 0xA
    }

    /// One whole frame.
    /// - Parameter mask: A client must give one, random for each frame; a server must not (RFC 6455 §5.1).
    public static func make(_ opcode: Opcode, _ payload: ByteBuffer, isFinal: Bool = true, mask: UInt32? = nil) -> ByteBuffer {
        let count = payload.readableBytes
        var frame = ByteBufferAllocator().buffer(capacity: headerBytes(payload: count) + (mask == nil ? 0 : 4) + count)
        append(opcode, payload, isFinal: isFinal, mask: mask, to: &frame)
        return frame
    }

    /// As `make`, at the end of a buffer that may hold more.
    public static func append(
        _ opcode: Opcode,
        _ payload: ByteBuffer,
        isFinal: Bool = true,
        mask: UInt32? = nil,
        to frame: inout ByteBuffer
    ) {
        let count = payload.readableBytes
        let maskBit: UInt8 = mask == nil ? 0 : 0x80
        frame.writeInteger(opcode.rawValue | (isFinal ? 0x80 : 0))
        switch count {
        case ..<126:
            frame.writeInteger(UInt8(count) | maskBit)
        case ..<0x1_0000:
            frame.writeInteger(126 | maskBit)
            frame.writeInteger(UInt16(count))
        default:
            frame.writeInteger(127 | maskBit)
            frame.writeInteger(UInt64(count))
        }
        if let mask {
            frame.writeInteger(mask, endianness: .host)
            frame.writeImmutableBuffer(payload.unmasked(with: mask))
        } else {
            frame.writeImmutableBuffer(payload)
        }
    }

    /// A close frame; a reason that is too long is cut at a character.
    public static func close(_ code: WebSocketCloseCode, reason: String = "", mask: UInt32? = nil) -> ByteBuffer {
        var payload = ByteBuffer()
        payload.writeInteger(code.rawValue)
        var room = WebSocketLimits.closeReasonBytes
        for scalar in reason.unicodeScalars {
            let width = UTF8.width(scalar)
            guard width <= room else { break }
            payload.writeString(String(scalar))
            room -= width
        }
        return make(.close, payload, mask: mask)
    }

    /// Bytes before the payload of an unmasked frame.
    public static func headerBytes(payload count: Int) -> Int { count < 126 ? 2 : count < 0x1_0000 ? 4 : 10 }
}
