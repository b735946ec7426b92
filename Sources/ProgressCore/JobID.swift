/// The name of a job: 1–128 characters of `A-Z a-z 0-9 . _ : -`; the third child of `parent` is named `parent~3`.
public struct JobID: Sendable, Hashable, CustomStringConvertible {
    /// The validated text.
    public let text: String

    /// Validates `text`; nil if it is empty, too long, holds another character, or a `~` that is not followed by a
    /// child's number (1–9 digits, no leading zero).
    public init?(_ text: String) {
        guard Self.isValid(text) else { return nil }
        self.text = text
    }

    private init(unchecked text: String) { self.text = text }

    /// Longest id in bytes.
    public static let maximumLength = 128

    /// The part that decides the partition: everything before the `~`.
    public var root: Substring { text.prefix { $0 != "~" } }

    /// The number behind the `~`, when this is a child.
    public var childNumber: Int? {
        guard let tilde = text.utf8.firstIndex(of: UInt8(ascii: "~")) else { return nil }
        return Int(text[text.index(after: tilde)...])
    }

    public var description: String { text }

    private static func isValid(_ text: String) -> Bool {
        var text = text
        return text.withUTF8 { bytes in
            guard (1...maximumLength).contains(bytes.count) else { return false }
            guard let end = bytes.firstIndex(where: { !isAllowed($0) }) else { return true }
            let number = bytes[(end + 1)...]
            return bytes[end] == UInt8(ascii: "~") && end > 0 && (1...9).contains(number.count)
                && number.first != UInt8(ascii: "0") && number.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        }
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: ":"), UInt8(ascii: "-"): true
        default: false
        }
    }
}

extension JobID {
    /// A new id: UUID version 7 (RFC 9562 §5.7), lower case, so that ids sort by the time they were made.
    ///
    /// - Parameters:
    ///   - unixMs: the time, in milliseconds since 1970; the low 48 bits are used.
    ///   - random: the source of the other 74 bits.
    public static func make(unixMs: Int, random: inout some RandomNumberGenerator) -> JobID {
        let high = UInt64(truncatingIfNeeded: unixMs) << 16 | 0x7000 | random.next() & 0x0fff
        let low = 0x8000_0000_0000_0000 | random.next() >> 2
        var bytes: [UInt8] = []
        bytes.reserveCapacity(36)
        for (word, offset) in [(high, 0), (low, 8)] {
            for index in 0..<8 {
                if [4, 6, 8, 10].contains(offset + index) { bytes.append(UInt8(ascii: "-")) }
                let byte = UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * index))
                bytes.append(hexDigit(byte >> 4))
                bytes.append(hexDigit(byte & 15))
            }
        }
        return JobID(unchecked: String(decoding: bytes, as: UTF8.self))
    }

    private static func hexDigit(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
    }
}
