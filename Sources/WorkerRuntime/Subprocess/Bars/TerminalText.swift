/// What a stretch of terminal output shows, without the codes that colour it and move the cursor.
enum TerminalText {
    /// Text that stands on one line of the screen.
    struct Piece: Hashable {
        var text: [UInt8]
        /// How many lines the cursor went up after it: tqdm draws its n-th nested bar n lines down and goes back up.
        var linesUp = 0

        var isBlank: Bool { text.allSatisfy { $0 == UInt8(ascii: " ") } }
    }

    /// Cuts `raw`, a stretch without line ends, at every move of the cursor to another line or to the line's start.
    ///
    /// Blanks at the end are dropped (a bar that got shorter is padded with them); a backspace takes the last byte back.
    static func pieces(of raw: UnsafeRawBufferPointer) -> [Piece] {
        // The usual case, and the one of a flood of plain lines.
        if !raw.contains(where: { $0 < 0x20 || $0 == 0x7f }) { return [Piece(text: trimmed(Array(raw)))] }
        var pieces: [Piece] = []
        var current = Piece(text: [])
        var index = 0
        func close() {
            current.text = trimmed(current.text)
            if !current.text.isEmpty || current.linesUp > 0 { pieces.append(current) }
            current = Piece(text: [])
        }
        while index < raw.count {
            let byte = raw[index]
            index += 1
            switch byte {
            case 0x1b:
                let code = escape(raw, &index)
                switch code.final {
                case UInt8(ascii: "A"), UInt8(ascii: "F"): current.linesUp += max(1, min(code.number, 100))
                case UInt8(ascii: "B"), UInt8(ascii: "E"), UInt8(ascii: "G"), UInt8(ascii: "H"), UInt8(ascii: "f"): close()
                case UInt8(ascii: "K") where code.number == 2: current.text.removeAll()
                default: break
                }
            case 0x08: _ = current.text.popLast()
            case 0x09: append(UInt8(ascii: " "))
            case 0..<0x20, 0x7f: break
            default: append(byte)
            }
        }
        func append(_ byte: UInt8) {
            if current.linesUp > 0 { close() }
            current.text.append(byte)
        }
        close()
        return pieces
    }

    /// Reads one escape sequence (ECMA-48 §5.3) behind its ESC: the final byte and first number of a control sequence, 0 for others.
    private static func escape(_ raw: UnsafeRawBufferPointer, _ index: inout Int) -> (final: UInt8, number: Int) {
        guard index < raw.count else { return (0, 0) }
        let kind = raw[index]
        index += 1
        switch kind {
        case UInt8(ascii: "["):
            var number = 0
            var isFirst = true
            while index < raw.count {
                let byte = raw[index]
                index += 1
                switch byte {
                case UInt8(ascii: "0")...UInt8(ascii: "9"): if isFirst { number = min(number * 10 + Int(byte - 0x30), 10_000) }
                case UInt8(ascii: ";"): isFirst = false
                case 0x20...0x3f: break
                default: return (byte, number)
                }
            }
        case UInt8(ascii: "]"), UInt8(ascii: "P"), UInt8(ascii: "_"), UInt8(ascii: "^"):
            // A command string ends with BEL or ESC \.
            while index < raw.count {
                let byte = raw[index]
                index += 1
                if byte == 0x07 { break }
                if byte == 0x1b {
                    index += 1
                    break
                }
            }
        default: break
        }
        return (0, 0)
    }

    private static func trimmed(_ text: [UInt8]) -> [UInt8] {
        guard text.last == UInt8(ascii: " ") else { return text }
        var text = text
        while text.last == UInt8(ascii: " ") { text.removeLast() }
        return text
    }
}
