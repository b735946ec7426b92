import NIOCore
import WebSocketWire

/// Everything the parser makes of `bytes` when they arrive in `pieces`, up to its first error.
func parse(
    _ bytes: [UInt8],
    role: WebSocketParser.Role = .server,
    limit: Int = 8192,
    pieces: (() -> Int)? = nil
) -> (messages: [WebSocketParser.Message], error: WebSocketError?) {
    var parser = WebSocketParser(role: role, maximumMessageBytes: limit)
    var messages: [WebSocketParser.Message] = []
    var rest = bytes[...]
    while !rest.isEmpty {
        let piece = rest.prefix(max(1, pieces?() ?? rest.count))
        rest = rest.dropFirst(piece.count)
        parser.append(ByteBuffer(bytes: piece))
        do {
            while let message = try parser.next() { messages.append(message) }
        } catch {
            return (messages, error)
        }
    }
    return (messages, nil)
}

func bytes(_ buffer: ByteBuffer) -> [UInt8] { Array(buffer.readableBytesView) }
