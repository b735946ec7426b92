/// The name of a job: 1–128 characters of `A-Z a-z 0-9 . _ : -`, and `~` before the number of a child.
public struct JobID: Sendable, Hashable, CustomStringConvertible {
    /// The validated text.
    public let text: String

    /// Validates `text`; nil if it is empty, too long or holds another character.
    public init?(_ text: String) {
        guard (1...Self.maximumLength).contains(text.utf8.count), text.utf8.allSatisfy(Self.isAllowed) else { return nil }
        self.text = text
    }

    /// Longest id in bytes.
    public static let maximumLength = 128

    /// The part that decides the partition: everything before the first `~`.
    public var root: Substring { text.prefix { $0 != "~" } }

    public var description: String { text }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: ":"), UInt8(ascii: "-"), UInt8(ascii: "~"): true
        default: false
        }
    }
}
