/// Checks a byte stream for well-formed UTF-8 (Unicode 15 table 3-7), in pieces of any size.
///
/// A value of three bytes of state, so that a fragmented text message is refused at the frame that spoils it.
struct UTF8Validator: Sendable {
    /// Continuation bytes still expected, and the range the next of them must lie in.
    private var remaining: UInt8 = 0
    private var lower: UInt8 = 0x80
    private var upper: UInt8 = 0xBF

    /// No character is cut off at the end of what was seen.
    var isComplete: Bool { remaining == 0 }

    /// False when `bytes` cannot continue what came before.
    mutating func accept(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        while index < bytes.count {
            // Eight ASCII bytes at a time: nearly all text is ASCII.
            if remaining == 0, index + 8 <= bytes.count,
                bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
            {
                index += 8
                continue
            }
            guard accept(bytes[index]) else { return false }
            index += 1
        }
        return true
    }

    private mutating func accept(_ byte: UInt8) -> Bool {
        if remaining > 0 {
            guard byte >= lower, byte <= upper else { return false }
            (remaining, lower, upper) = (remaining - 1, 0x80, 0xBF)
            return true
        }
        switch byte {
        case 0x00...0x7F: return true
        case 0xC2...0xDF: expect(1, 0x80, 0xBF)
        case 0xE0: expect(2, 0xA0, 0xBF)
        case 0xED: expect(2, 0x80, 0x9F)
        case 0xE1...0xEF: expect(2, 0x80, 0xBF)
        case 0xF0: expect(3, 0x90, 0xBF)
        case 0xF4: expect(3, 0x80, 0x8F)
        case 0xF1...0xF3: expect(3, 0x80, 0xBF)
        default: return false
        }
        return true
    }

    private mutating func expect(_ count: UInt8, _ low: UInt8, _ high: UInt8) {
        (remaining, lower, upper) = (count, low, high)
    }
}
