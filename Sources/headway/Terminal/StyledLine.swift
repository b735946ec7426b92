/// A line of pieces with colours, whose width on a terminal is known before any escape sequence is added.
struct StyledLine: Sendable, Equatable {
    /// SGR parameters (ECMA-48 §8.3.117).
    enum Style: String, Sendable {
        case plain = ""
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case cyan = "36"
    }

    struct Piece: Sendable, Equatable {
        var text: String
        var style: Style
    }

    private(set) var pieces: [Piece] = []
    private(set) var width = 0

    init() {}

    init(_ text: String, _ style: Style = .plain) { append(text, style) }

    /// Appends text; control characters become visible, so that no message can move the cursor.
    mutating func append(_ text: String, _ style: Style = .plain) {
        let clean = TextWidth.printable(text)
        guard !clean.isEmpty else { return }
        pieces.append(Piece(text: clean, style: style))
        width += TextWidth.columns(of: clean)
    }

    mutating func append(_ other: StyledLine) {
        pieces += other.pieces
        width += other.width
    }

    /// Cut to `columns`, with an ellipsis where something is missing.
    func cut(to columns: Int) -> StyledLine {
        guard width > columns else { return self }
        var line = StyledLine()
        for piece in pieces {
            let room = columns - line.width
            guard TextWidth.columns(of: piece.text) <= room, line.width + TextWidth.columns(of: piece.text) < columns else {
                line.append(TextWidth.cut(piece.text, to: room, always: true), piece.style)
                break
            }
            line.append(piece.text, piece.style)
        }
        return line
    }

    func text(hasColour: Bool) -> String {
        pieces.map { piece in
            hasColour && piece.style != .plain ? "\u{1B}[\(piece.style.rawValue)m\(piece.text)\u{1B}[0m" : piece.text
        }.joined()
    }
}

/// How many columns text takes on a terminal: the simple rule of Unicode UAX #11 (wide and fullwidth two, marks none, else one).
enum TextWidth {
    static func columns(of text: String) -> Int {
        text.unicodeScalars.reduce(0) { $0 + columns(of: $1) }
    }

    private static func columns(of scalar: Unicode.Scalar) -> Int {
        if scalar.value < 0x300 { return 1 }
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return 0
        default: break
        }
        switch scalar.value {
        case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0x33FF, 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xA000...0xA4CF, 0xAC00...0xD7A3,
            0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F680...0x1F6FF, 0x1F900...0x1F9FF,
            0x20000...0x3FFFD:
            return 2
        default: return scalar.properties.isEmojiPresentation ? 2 : 1
        }
    }

    /// Controls (also the C1 set, which some terminals obey) as `?`, line ends and tabs as a space.
    static func printable(_ text: String) -> String {
        var out = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x09, 0x0A, 0x0D, 0x2028, 0x2029: out.append(" ")
            case 0..<0x20, 0x7F..<0xA0: out.append("?")
            // Marks that reorder a line (Unicode UAX #9) could make it read differently from what it is.
            case 0x202A...0x202E, 0x2066...0x2069: out.append("?")
            default: out.append(scalar)
            }
        }
        return String(out)
    }

    /// The beginning of `text` that fits, ending in `…` when something is left out (or `always`).
    static func cut(_ text: String, to limit: Int, always: Bool = false) -> String {
        guard always || columns(of: text) > limit else { return text }
        guard limit > 0 else { return "" }
        var out = String.UnicodeScalarView()
        var used = 0
        for scalar in text.unicodeScalars {
            let columns = columns(of: scalar)
            guard used + columns <= limit - 1 else { break }
            out.append(scalar)
            used += columns
        }
        return String(out) + "…"
    }
}
