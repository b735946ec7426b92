import Glibc

/// Reads one JSON text (RFC 8259), strictly, without building a tree: objects and arrays stay ranges of the text.
///
/// A generator may send a hundred thousand lines a second, and its result has to go on as the very text it wrote; a
/// decoder would parse ten times slower and could only write the result anew.
struct JSONScanner {
    enum Value: Hashable {
        case string(String)
        case number(Double)
        case bool(Bool)
        case null
        /// The text of the container, for `members(of:)` and `elements(of:)`.
        case object(Range<Int>)
        case array(Range<Int>)
    }

    struct Malformed: Error {}

    let bytes: [UInt8]
    private var position = 0
    private var end: Int

    /// - Throws: `Malformed` when `bytes` are not UTF-8.
    init(_ bytes: [UInt8]) throws(Malformed) {
        guard bytes.allSatisfy({ $0 < 0x80 }) || String(validating: bytes, as: UTF8.self) != nil else { throw Malformed() }
        self.bytes = bytes
        self.end = bytes.count
    }

    /// False when no member of this name is anywhere in the text, by a look that is cheap beside reading it.
    static func mayHold(member name: StaticString, _ json: String) -> Bool {
        var json = json
        return json.withUTF8 { bytes in
            // A name can be spelled with escapes.
            guard var place = bytes.baseAddress.map({ UnsafeRawPointer($0) }) else { return false }
            if memchr(place, Int32(UInt8(ascii: "\\")), bytes.count) != nil { return true }
            let end = place + bytes.count
            while let next = memchr(place, Int32(name.utf8Start.pointee), end - place) {
                if end - UnsafeRawPointer(next) >= name.utf8CodeUnitCount, memcmp(next, name.utf8Start, name.utf8CodeUnitCount) == 0 {
                    return true
                }
                place = UnsafeRawPointer(next) + 1
            }
            return false
        }
    }

    /// The one value that the whole text is.
    mutating func document() throws(Malformed) -> Value {
        let value = try value(depth: 0)
        skipSpace()
        guard position == end else { throw Malformed() }
        return value
    }

    func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }

    /// Members of an object that `document` or a nested read has validated: name, value and the value's text.
    func members(of range: Range<Int>) throws(Malformed) -> [(name: String, value: Value, text: Range<Int>)] {
        var scanner = self
        scanner.position = range.lowerBound + 1
        scanner.end = range.upperBound
        var members: [(String, Value, Range<Int>)] = []
        scanner.skipSpace()
        if scanner.take(UInt8(ascii: "}")) { return [] }
        repeat {
            scanner.skipSpace()
            let name = try scanner.string()
            scanner.skipSpace()
            guard scanner.take(UInt8(ascii: ":")) else { throw Malformed() }
            scanner.skipSpace()
            let start = scanner.position
            let value = try scanner.value(depth: 0)
            members.append((name, value, start..<scanner.position))
            scanner.skipSpace()
        } while scanner.take(UInt8(ascii: ","))
        return members
    }

    func elements(of range: Range<Int>) throws(Malformed) -> [Value] {
        var scanner = self
        scanner.position = range.lowerBound + 1
        scanner.end = range.upperBound
        var elements: [Value] = []
        scanner.skipSpace()
        if scanner.take(UInt8(ascii: "]")) { return [] }
        repeat {
            elements.append(try scanner.value(depth: 0))
            scanner.skipSpace()
        } while scanner.take(UInt8(ascii: ","))
        return elements
    }

    // MARK: Grammar

    private mutating func value(depth: Int) throws(Malformed) -> Value {
        skipSpace()
        guard position < end, depth < WorkerLimits.jsonDepth else { throw Malformed() }
        let start = position
        switch bytes[position] {
        case UInt8(ascii: "{"):
            try container(depth: depth, close: UInt8(ascii: "}"), hasNames: true)
            return .object(start..<position)
        case UInt8(ascii: "["):
            try container(depth: depth, close: UInt8(ascii: "]"), hasNames: false)
            return .array(start..<position)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"):
            try word("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try word("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try word("null")
            return .null
        default: return .number(try number())
        }
    }

    private mutating func container(depth: Int, close: UInt8, hasNames: Bool) throws(Malformed) {
        position += 1
        skipSpace()
        if take(close) { return }
        repeat {
            if hasNames {
                skipSpace()
                try skipString()
                skipSpace()
                guard take(UInt8(ascii: ":")) else { throw Malformed() }
            }
            skipSpace()
            if position < end, bytes[position] == UInt8(ascii: "\"") { try skipString() } else { _ = try value(depth: depth + 1) }
            skipSpace()
        } while take(UInt8(ascii: ","))
        guard take(close) else { throw Malformed() }
    }

    private mutating func skipSpace() {
        while position < end {
            switch bytes[position] {
            case 0x20, 0x09, 0x0a, 0x0d: position += 1
            default: return
            }
        }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard position < end, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func word(_ text: StaticString) throws(Malformed) {
        let length = text.utf8CodeUnitCount
        guard end - position >= length else { throw Malformed() }
        for index in 0..<length where bytes[position + index] != text.utf8Start[index] { throw Malformed() }
        position += length
    }

    /// Checks a string's escapes and steps over it; true when it holds none, so that its bytes are its text.
    @discardableResult
    private mutating func skipString() throws(Malformed) -> Bool {
        guard take(UInt8(ascii: "\"")) else { throw Malformed() }
        var isPlain = true
        while position < end {
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return isPlain
            case 0..<0x20: throw Malformed()
            case UInt8(ascii: "\\"):
                isPlain = false
                guard position < end else { throw Malformed() }
                let escape = bytes[position]
                position += 1
                if escape == UInt8(ascii: "u") {
                    _ = try hexadecimal()
                } else if !#""\/bfnrt"#.utf8.contains(escape) {
                    throw Malformed()
                }
            default: break
            }
        }
        throw Malformed()
    }

    private mutating func string() throws(Malformed) -> String {
        let start = position + 1
        if try skipString() { return String(decoding: bytes[start..<(position - 1)], as: UTF8.self) }
        return unescaped(start..<(position - 1))
    }

    private mutating func hexadecimal() throws(Malformed) -> UInt32 {
        guard end - position >= 4 else { throw Malformed() }
        var value: UInt32 = 0
        for byte in bytes[position..<(position + 4)] {
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { throw Malformed() }
            value = value << 4 | UInt32(digit)
        }
        position += 4
        return value
    }

    /// The text of a checked string; halves of surrogate pairs that stand alone become U+FFFD.
    private func unescaped(_ range: Range<Int>) -> String {
        var units: [UInt16] = []
        var plainStart = range.lowerBound
        var index = range.lowerBound
        func flush(upTo limit: Int) { units.append(contentsOf: String(decoding: bytes[plainStart..<limit], as: UTF8.self).utf16) }
        while index < range.upperBound {
            guard bytes[index] == UInt8(ascii: "\\") else {
                index += 1
                continue
            }
            flush(upTo: index)
            switch bytes[index + 1] {
            case UInt8(ascii: "u"):
                units.append(UInt16(String(decoding: bytes[(index + 2)..<(index + 6)], as: UTF8.self), radix: 16) ?? 0xfffd)
                index += 4
            case UInt8(ascii: "b"): units.append(0x08)
            case UInt8(ascii: "f"): units.append(0x0c)
            case UInt8(ascii: "n"): units.append(0x0a)
            case UInt8(ascii: "r"): units.append(0x0d)
            case UInt8(ascii: "t"): units.append(0x09)
            case let other: units.append(UInt16(other))
            }
            index += 2
            plainStart = index
        }
        flush(upTo: range.upperBound)
        return String(decoding: units, as: UTF16.self)
    }

    private mutating func number() throws(Malformed) -> Double {
        let start = position
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) { try digits() }
        if take(UInt8(ascii: ".")) { try digits() }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try digits()
        }
        guard let value = Double(String(decoding: bytes[start..<position], as: UTF8.self)) else { throw Malformed() }
        return value
    }

    private mutating func digits() throws(Malformed) {
        let start = position
        while position < end, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) { position += 1 }
        guard position > start else { throw Malformed() }
    }
}
