import NIOCore
import RedisLink
import TestSupport

/// Random replies.
extension SeededGenerator {
    mutating func bytes(upTo limit: Int) -> [UInt8] {
        let count = Int.random(in: 0...limit, using: &self)
        var words = [UInt64](repeating: 0, count: count / 8 + 1)
        for index in words.indices { words[index] = next() }
        return words.withUnsafeBytes { Array($0.prefix(count)) }
    }

    /// Text without line ends, as statuses and errors are.
    mutating func line(upTo limit: Int) -> String {
        String((0..<Int.random(in: 0...limit, using: &self)).map { _ in "abcXYZ 019.,:-_é√".randomElement(using: &self) ?? "a" })
    }

    mutating func reply(depth: Int = 0) -> RESPValue {
        switch Int.random(in: 0..<(depth < 5 ? 7 : 5), using: &self) {
        case 0: return .null
        case 1:
            return .integer(
                Bool.random(using: &self) ? Int64.random(in: .min ... .max, using: &self) : Int64.random(in: -9...9, using: &self)
            )
        case 2: return .status(line(upTo: 20))
        case 3: return .error(line(upTo: 40))
        case 4: return .bulk(ByteBuffer(bytes: bytes(upTo: [4, 8, 60, 2_000].randomElement(using: &self) ?? 8)))
        default: return .array((0..<Int.random(in: 0...6, using: &self)).map { _ in reply(depth: depth + 1) })
        }
    }
}

extension RESPValue {
    /// As a server writes it, spelled out here independently of the code under test.
    func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .null: buffer.writeString("$-1\r\n")
        case .integer(let value): buffer.writeString(":\(value)\r\n")
        case .status(let text): buffer.writeString("+\(text)\r\n")
        case .error(let text): buffer.writeString("-\(text)\r\n")
        case .bulk(let bytes):
            buffer.writeString("$\(bytes.readableBytes)\r\n")
            buffer.writeImmutableBuffer(bytes)
            buffer.writeString("\r\n")
        case .array(let values):
            buffer.writeString("*\(values.count)\r\n")
            for value in values { value.encode(into: &buffer) }
        }
    }
}

extension ByteBuffer {
    /// Cut at random places, from single bytes to all at once.
    func split(using generator: inout SeededGenerator) -> [ByteBuffer] {
        var rest = self
        var pieces: [ByteBuffer] = []
        // Single bytes only for short streams: the cases should be many, not long.
        let largest =
            (readableBytes < 500 ? [1, 7, 100, 5_000] : [readableBytes / 50, 5_000, 200_000]).randomElement(using: &generator) ?? 1
        while rest.readableBytes > 0 {
            let length = Int.random(in: 1...min(largest, rest.readableBytes), using: &generator)
            pieces.append(rest.readSlice(length: length) ?? ByteBuffer())
        }
        return pieces
    }
}
