import NIOCore
import WebSocketWire

/// SplitMix64: the same cases on every run, from a printed seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

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
