/// Why a text is not JSON.
struct JSONProblem: Error, Hashable {
    /// Bytes before the problem.
    let offset: Int
    let message: String
}

/// A JSON text that was checked byte by byte (RFC 8259, valid UTF-8, no lone surrogates, bounded depth) and is read in place.
///
/// Nothing is decoded that nobody asks for: `params` goes to Redis as the very bytes that were checked here.
struct CheckedJSON: Sendable {
    let bytes: [UInt8]

    /// Checks `bytes`.
    init(_ bytes: [UInt8], maximumDepth: Int) throws(JSONProblem) {
        var checker = JSONChecker(bytes: bytes, maximumDepth: maximumDepth)
        try checker.checkDocument()
        self.bytes = bytes
    }

    var root: JSONView {
        var start = 0
        while start < bytes.count, JSONChecker.isSpace(bytes[start]) { start += 1 }
        var end = bytes.count
        while end > start, JSONChecker.isSpace(bytes[end - 1]) { end -= 1 }
        return JSONView(text: self, range: start..<end)
    }
}

/// One value within a checked text. Reading cannot fail on syntax, only on type.
struct JSONView: Sendable {
    enum Kind: String {
        case object, array, string, number, boolean, null
    }

    let text: CheckedJSON
    /// The value's bytes, without white space around.
    let range: Range<Int>

    private var bytes: [UInt8] { text.bytes }

    var kind: Kind {
        switch bytes[range.lowerBound] {
        case UInt8(ascii: "{"): .object
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "t"), UInt8(ascii: "f"): .boolean
        case UInt8(ascii: "n"): .null
        default: .number
        }
    }

    /// The value's text, exactly as sent.
    var raw: String { String(decoding: bytes[range], as: UTF8.self) }

    /// The value's text without white space between its parts: one line, for texts that are spliced into an event.
    var compact: String {
        var out: [UInt8] = []
        out.reserveCapacity(range.count)
        var isInString = false
        var cursor = range.lowerBound
        while cursor < range.upperBound {
            let byte = bytes[cursor]
            cursor += 1
            if !isInString, JSONChecker.isSpace(byte) { continue }
            out.append(byte)
            if byte == UInt8(ascii: "\"") { isInString.toggle() }
            if byte == UInt8(ascii: "\\") {
                out.append(bytes[cursor])
                cursor += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    var bool: Bool? { kind == .boolean ? bytes[range.lowerBound] == UInt8(ascii: "t") : nil }

    /// An integer without fraction or exponent that fits.
    var int: Int? {
        guard kind == .number, range.count <= 20 else { return nil }
        return Int(raw)
    }

    var double: Double? {
        guard kind == .number, range.count <= 64, let value = Double(raw), value.isFinite else { return nil }
        return value
    }

    var string: String? {
        guard kind == .string else { return nil }
        let inner = bytes[(range.lowerBound + 1)..<(range.upperBound - 1)]
        guard inner.contains(UInt8(ascii: "\\")) else { return String(decoding: inner, as: UTF8.self) }
        return Self.unescaped(inner)
    }

    /// Calls `body` for every member of an object, in order; nothing for other kinds.
    func forEachMember<Failure>(_ body: (_ name: String, _ value: JSONView) throws(Failure) -> Void) throws(Failure) {
        guard kind == .object else { return }
        var cursor = skipSpace(range.lowerBound + 1)
        while bytes[cursor] != UInt8(ascii: "}") {
            let name = value(at: cursor)
            cursor = skipSpace(name.range.upperBound)
            let member = value(at: skipSpace(cursor + 1))
            try body(name.string ?? "", member)
            cursor = skipSpace(member.range.upperBound)
            if bytes[cursor] == UInt8(ascii: ",") { cursor = skipSpace(cursor + 1) }
        }
    }

    /// Calls `body` for every element of an array, in order; nothing for other kinds.
    func forEachElement<Failure>(_ body: (_ index: Int, _ value: JSONView) throws(Failure) -> Void) throws(Failure) {
        guard kind == .array else { return }
        var cursor = skipSpace(range.lowerBound + 1)
        var index = 0
        while bytes[cursor] != UInt8(ascii: "]") {
            let element = value(at: cursor)
            try body(index, element)
            index += 1
            cursor = skipSpace(element.range.upperBound)
            if bytes[cursor] == UInt8(ascii: ",") { cursor = skipSpace(cursor + 1) }
        }
    }

    private func skipSpace(_ start: Int) -> Int {
        var cursor = start
        while JSONChecker.isSpace(bytes[cursor]) { cursor += 1 }
        return cursor
    }

    /// The value that begins at `start`; the text is known to be right, so only brackets and quotes need a look.
    private func value(at start: Int) -> JSONView {
        var cursor = start
        switch bytes[start] {
        case UInt8(ascii: "\""): cursor = endOfString(start)
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            var depth = 0
            repeat {
                switch bytes[cursor] {
                case UInt8(ascii: "\""): cursor = endOfString(cursor) - 1
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                default: break
                }
                cursor += 1
            } while depth > 0
        default:
            while cursor < range.upperBound, !JSONChecker.endsScalar(bytes[cursor]) { cursor += 1 }
        }
        return JSONView(text: text, range: start..<cursor)
    }

    private func endOfString(_ start: Int) -> Int {
        var cursor = start + 1
        while bytes[cursor] != UInt8(ascii: "\"") { cursor += bytes[cursor] == UInt8(ascii: "\\") ? 2 : 1 }
        return cursor + 1
    }

    private static func unescaped(_ inner: ArraySlice<UInt8>) -> String {
        var out: [UInt8] = []
        out.reserveCapacity(inner.count)
        var rest = inner
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\"), let escape = rest.popFirst() else {
                out.append(byte)
                continue
            }
            switch escape {
            case UInt8(ascii: "n"): out.append(0x0a)
            case UInt8(ascii: "r"): out.append(0x0d)
            case UInt8(ascii: "t"): out.append(0x09)
            case UInt8(ascii: "b"): out.append(0x08)
            case UInt8(ascii: "f"): out.append(0x0c)
            case UInt8(ascii: "u"):
                var value = JSONChecker.hex(rest.prefix(4))
                rest = rest.dropFirst(4)
                if (0xd800..<0xdc00).contains(value) {
                    value = 0x10000 + (value - 0xd800) << 10 + (JSONChecker.hex(rest.dropFirst(2).prefix(4)) - 0xdc00)
                    rest = rest.dropFirst(6)
                }
                if let scalar = Unicode.Scalar(value), let encoded = UTF8.encode(scalar) { out.append(contentsOf: encoded) }
            default: out.append(escape)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
