/// The spelling of stage names that everything downstream (Redis fields, metrics, pages) can rely on.
public enum StageName {
    /// `A-Z a-z 0-9`, space and `_ . : / -`.
    public static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: " "), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: "/"), UInt8(ascii: "-"): true
        default: false
        }
    }

    /// `text` with every other byte replaced by `_`, cut to the limit; nil when nothing is left.
    ///
    /// A script may name its stages in any language; its progress must not be lost for that.
    public static func sanitised(_ text: String) -> String? {
        if text.utf8.count <= ProgressLimits.stageNameBytes, text.utf8.allSatisfy(isAllowed) { return text.isEmpty ? nil : text }
        let bytes = text.utf8.prefix(ProgressLimits.stageNameBytes).map { isAllowed($0) ? $0 : UInt8(ascii: "_") }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }
}

/// Text for people, made safe to store and to show.
public enum MessageText {
    /// `text` on one line and cut to at most `limit` bytes at a character's edge; control characters become spaces.
    public static func sanitised(_ text: String, limit: Int = ProgressLimits.messageBytes) -> String {
        let isClean = text.utf8.count <= limit && text.unicodeScalars.allSatisfy { !isControl($0) }
        if isClean { return text }
        var out = String.UnicodeScalarView()
        var bytes = 0
        for scalar in text.unicodeScalars {
            let kept = isControl(scalar) ? " " : scalar
            bytes += UTF8.width(kept)
            if bytes > limit { break }
            out.append(kept)
        }
        return String(out)
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) }
}
