/// The syntax of RFC 8259, strictly, in one pass without recursion: depth is a number, never stack.
struct JSONChecker {
    let bytes: [UInt8]
    let maximumDepth: Int
    private var cursor = 0
    /// What each open bracket is: true = object.
    private var open: [Bool] = []

    init(bytes: [UInt8], maximumDepth: Int) {
        self.bytes = bytes
        self.maximumDepth = maximumDepth
    }

    static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 }

    static func endsScalar(_ byte: UInt8) -> Bool {
        isSpace(byte) || byte == UInt8(ascii: ",") || byte == UInt8(ascii: "}") || byte == UInt8(ascii: "]")
    }

    /// The value of hex digits that are known to be some.
    static func hex(_ digits: ArraySlice<UInt8>) -> UInt32 {
        digits.reduce(0) { $0 << 4 | UInt32(hexDigit($1) ?? 0) }
    }

    static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    private var current: UInt8? { cursor < bytes.count ? bytes[cursor] : nil }

    private func problem(_ message: String) -> JSONProblem { JSONProblem(offset: cursor, message: message) }

    private mutating func skipSpace() {
        while cursor < bytes.count, Self.isSpace(bytes[cursor]) { cursor += 1 }
    }

    mutating func checkDocument() throws(JSONProblem) {
        skipSpace()
        try checkValue()
        // Each turn stands behind a value inside the innermost open bracket.
        while let isObject = open.last {
            skipSpace()
            switch current {
            case UInt8(ascii: ","):
                cursor += 1
                skipSpace()
                if isObject { try checkName() }
                try checkValue()
            case UInt8(ascii: "}") where isObject, UInt8(ascii: "]") where !isObject:
                cursor += 1
                open.removeLast()
            case nil: throw problem("the text ends before its \(isObject ? "object" : "array") does")
            default: throw problem("expected ',' or '\(isObject ? "}" : "]")'")
            }
        }
        skipSpace()
        if cursor < bytes.count { throw problem("something follows the value") }
    }

    /// One scalar, an empty array or object, or an opening bracket with everything up to its first scalar.
    private mutating func checkValue() throws(JSONProblem) {
        while true {
            guard let byte = current else { throw problem("the text ends where a value is expected") }
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                let isObject = byte == UInt8(ascii: "{")
                guard open.count < maximumDepth else { throw problem("more than \(maximumDepth) levels of brackets") }
                cursor += 1
                skipSpace()
                if current == UInt8(ascii: isObject ? "}" : "]") {
                    cursor += 1
                    return
                }
                open.append(isObject)
                if isObject { try checkName() }
            case UInt8(ascii: "\""):
                return try checkString()
            case UInt8(ascii: "t"): return try checkWord("true")
            case UInt8(ascii: "f"): return try checkWord("false")
            case UInt8(ascii: "n"): return try checkWord("null")
            case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try checkNumber()
            default: throw problem("expected a value")
            }
        }
    }

    private mutating func checkName() throws(JSONProblem) {
        guard current == UInt8(ascii: "\"") else { throw problem("expected a member's name in double quotes") }
        try checkString()
        skipSpace()
        guard current == UInt8(ascii: ":") else { throw problem("expected ':'") }
        cursor += 1
        skipSpace()
    }

    private mutating func checkWord(_ word: StaticString) throws(JSONProblem) {
        let end = cursor + word.utf8CodeUnitCount
        let matches = word.withUTF8Buffer { end <= bytes.count && bytes[cursor..<end].elementsEqual($0) }
        guard matches, end == bytes.count || Self.endsScalar(bytes[end]) else { throw problem("expected a value") }
        cursor = end
    }

    private mutating func checkNumber() throws(JSONProblem) {
        if current == UInt8(ascii: "-") { cursor += 1 }
        if current == UInt8(ascii: "0") {
            cursor += 1
        } else {
            try checkDigits()
        }
        if current == UInt8(ascii: ".") {
            cursor += 1
            try checkDigits()
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            cursor += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { cursor += 1 }
            try checkDigits()
        }
        if let byte = current, !Self.endsScalar(byte) { throw problem("not a number") }
    }

    private mutating func checkDigits() throws(JSONProblem) {
        let start = cursor
        while let byte = current, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { cursor += 1 }
        if cursor == start { throw problem("expected a digit") }
    }

    private mutating func checkString() throws(JSONProblem) {
        cursor += 1
        while let byte = current {
            switch byte {
            case UInt8(ascii: "\""):
                cursor += 1
                return
            case UInt8(ascii: "\\"): try checkEscape()
            case 0..<0x20: throw problem("a control character must be escaped in a string")
            case 0x20..<0x80: cursor += 1
            default: try checkMultibyte(byte)
            }
        }
        throw problem("the text ends within a string")
    }

    private mutating func checkEscape() throws(JSONProblem) {
        cursor += 1
        switch current {
        case UInt8(ascii: "u"):
            let value = try checkUnicodeEscape()
            if (0xdc00..<0xe000).contains(value) { throw problem("a low surrogate without its high one") }
            guard (0xd800..<0xdc00).contains(value) else { return }
            guard current == UInt8(ascii: "\\"), cursor + 1 < bytes.count, bytes[cursor + 1] == UInt8(ascii: "u") else {
                throw problem("a high surrogate without its low one")
            }
            cursor += 1
            guard (0xdc00..<0xe000).contains(try checkUnicodeEscape()) else { throw problem("a high surrogate without its low one") }
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"),
            UInt8(ascii: "r"), UInt8(ascii: "t"):
            cursor += 1
        default: throw problem("not an escape")
        }
    }

    /// Stands on the `u`; ends behind the four digits.
    private mutating func checkUnicodeEscape() throws(JSONProblem) -> UInt32 {
        cursor += 1
        guard cursor + 4 <= bytes.count, bytes[cursor..<(cursor + 4)].allSatisfy({ Self.hexDigit($0) != nil }) else {
            throw problem("expected four hex digits")
        }
        defer { cursor += 4 }
        return Self.hex(bytes[cursor..<(cursor + 4)])
    }

    /// One well-formed UTF-8 sequence (Unicode 15, table 3-7).
    private mutating func checkMultibyte(_ lead: UInt8) throws(JSONProblem) {
        let second: ClosedRange<UInt8>
        let length: Int
        switch lead {
        case 0xc2...0xdf: (second, length) = (0x80...0xbf, 2)
        case 0xe0: (second, length) = (0xa0...0xbf, 3)
        case 0xe1...0xec, 0xee...0xef: (second, length) = (0x80...0xbf, 3)
        case 0xed: (second, length) = (0x80...0x9f, 3)
        case 0xf0: (second, length) = (0x90...0xbf, 4)
        case 0xf1...0xf3: (second, length) = (0x80...0xbf, 4)
        case 0xf4: (second, length) = (0x80...0x8f, 4)
        default: throw problem("not UTF-8")
        }
        guard cursor + length <= bytes.count, second.contains(bytes[cursor + 1]),
            bytes[(cursor + 2)..<(cursor + length)].allSatisfy({ (0x80...0xbf).contains($0) })
        else { throw problem("not UTF-8") }
        cursor += length
    }
}
