/// The bytes of one line, and readers of what progress bars are made of. Every reader moves its index only over what it read.
struct BarText {
    let bytes: [UInt8]

    var count: Int { bytes.count }

    func byte(_ index: Int) -> UInt8 { bytes.indices.contains(index) ? bytes[index] : 0 }

    func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }

    static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
    static func isLetter(_ byte: UInt8) -> Bool { (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a }

    func skipBlanks(_ index: inout Int, atMost limit: Int = .max) {
        var left = limit
        while left > 0, byte(index) == UInt8(ascii: " ") {
            index += 1
            left -= 1
        }
    }

    // MARK: Numbers

    struct Number: Hashable {
        var value: Double
        /// Written as a whole number, without a point or a magnitude.
        var isWhole: Bool
    }

    /// `12`, `1.25`, `7.34M`: digits with at most one point, and a decimal magnitude when `isScaled`.
    ///
    /// A magnitude is taken as a power of 1000 whatever it was: only ratios of two numbers of one bar are used.
    func number(_ index: inout Int, isScaled: Bool) -> Number? {
        var position = index
        var value = 0.0
        var digits = 0
        while BarText.isDigit(byte(position)), digits < 18 {
            value = value * 10 + Double(byte(position) - 0x30)
            position += 1
            digits += 1
        }
        guard digits > 0, !BarText.isDigit(byte(position)) else { return nil }
        var isWhole = true
        if byte(position) == UInt8(ascii: "."), BarText.isDigit(byte(position + 1)) {
            isWhole = false
            position += 1
            var scale = 1.0
            while BarText.isDigit(byte(position)) {
                // Digits beyond the precision of a number say nothing.
                if scale < 1e9 {
                    value = value * 10 + Double(byte(position) - 0x30)
                    scale *= 10
                }
                position += 1
            }
            value /= scale
        }
        if isScaled, let power = BarText.magnitude(byte(position)) {
            isWhole = false
            value *= power
            position += 1
        }
        index = position
        return Number(value: value, isWhole: isWhole)
    }

    private static func magnitude(_ byte: UInt8) -> Double? {
        switch byte {
        case UInt8(ascii: "k"), UInt8(ascii: "K"): 1e3
        case UInt8(ascii: "M"): 1e6
        case UInt8(ascii: "G"): 1e9
        case UInt8(ascii: "T"): 1e12
        case UInt8(ascii: "P"): 1e15
        case UInt8(ascii: "E"): 1e18
        case UInt8(ascii: "Z"): 1e21
        case UInt8(ascii: "Y"): 1e24
        default: nil
        }
    }

    /// `9/20`, `7.34M/105M`, `1.2/3.4`; with `?` for a total that is not known.
    func ratio(_ index: inout Int) -> (count: Number, total: Number?)? {
        var position = index
        guard let count = number(&position, isScaled: true), byte(position) == UInt8(ascii: "/") else { return nil }
        position += 1
        if byte(position) == UInt8(ascii: "?") {
            index = position + 1
            return (count, nil)
        }
        guard let total = number(&position, isScaled: true), byte(position) != UInt8(ascii: "/") else { return nil }
        index = position
        return (count, total)
    }

    /// The percentage whose sign stands at `sign`: its value, and where it starts. Up to 100, on its own as a word.
    func percentage(before sign: Int) -> (value: Double, start: Int)? {
        var start = sign
        if start > 0, byte(start - 1) == UInt8(ascii: " "), start > 1, BarText.isDigit(byte(start - 2)) { start -= 1 }
        let end = start
        while start > 0, BarText.isDigit(byte(start - 1)) || byte(start - 1) == UInt8(ascii: "."), end - start < 12 { start -= 1 }
        var position = start
        guard let number = number(&position, isScaled: false), position == end, number.value <= 100 else { return nil }
        switch start == 0 ? UInt8(ascii: " ") : byte(start - 1) {
        case UInt8(ascii: " "), UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "("), UInt8(ascii: "|"), UInt8(ascii: "="): break
        case 0x80...: break
        default: return nil
        }
        return (number.value, start)
    }

    /// `00:05`, `1:06:40`, also negative as tqdm prints a clock that was set back: in seconds.
    func clock(_ index: inout Int) -> Int? {
        var position = index
        if byte(position) == UInt8(ascii: "-") { position += 1 }
        var parts: [Int] = []
        while parts.count < 3 {
            var digits = 0
            var value = 0
            while BarText.isDigit(byte(position)), digits < 9 {
                value = value * 10 + Int(byte(position) - 0x30)
                position += 1
                digits += 1
            }
            guard digits > 0 else { return nil }
            parts.append(value)
            guard byte(position) == UInt8(ascii: ":") else { break }
            position += 1
        }
        guard parts.count >= 2, parts.dropFirst().allSatisfy({ $0 < 60 }) else { return nil }
        index = position
        return parts.reduce(0) { $0 * 60 + $1 }
    }

    // MARK: Drawing

    /// The end of one drawn cell at `index`: a block, line, shape or braille glyph; nil for anything else.
    func glyph(at index: Int) -> Int? {
        guard byte(index) == 0xe2, index + 2 < count else { return nil }
        let middle = byte(index + 1)
        // U+2500…25FF and U+2800…28FF.
        return (0x94...0x97).contains(middle) || (0xa0...0xa3).contains(middle) ? index + 3 : nil
    }

    /// Whether `range` could be the inside of a bar: blanks, drawn cells, and what bars are drawn with in ASCII.
    func isGauge(_ range: Range<Int>) -> Bool {
        var index = range.lowerBound
        while index < range.upperBound {
            if let next = glyph(at: index) {
                index = next
            } else if isPlainCell(byte(index)) || BarText.isDigit(byte(index)) {
                index += 1
            } else if byte(index) >= 0xe2, index + 3 >= range.upperBound {
                // Cut inside of a glyph by somebody who counted bytes.
                return true
            } else {
                return false
            }
        }
        return true
    }

    func isPlainCell(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "#"), UInt8(ascii: "="), UInt8(ascii: ">"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "~"), UInt8(ascii: "_"), UInt8(ascii: "@"), UInt8(ascii: "o"):
            true
        default: false
        }
    }

    /// The end of the bracket that opens at `open`, behind it; nil when it does not close.
    func closing(of open: Int) -> Int? {
        var depth = 0
        for index in open..<count {
            if byte(index) == UInt8(ascii: "[") { depth += 1 }
            if byte(index) == UInt8(ascii: "]") {
                depth -= 1
                if depth == 0 { return index + 1 }
            }
        }
        return nil
    }

    /// `range` without blanks at either end, and without colons and blanks at the end: tqdm adds `: ` to a title, also to one that
    /// ends with a colon already.
    func title(_ range: Range<Int>) -> String {
        var (start, end) = (range.lowerBound, range.upperBound)
        while start < end, byte(start) == UInt8(ascii: " ") { start += 1 }
        while end > start, byte(end - 1) == UInt8(ascii: " ") || byte(end - 1) == UInt8(ascii: ":") { end -= 1 }
        return text(start..<end)
    }
}
