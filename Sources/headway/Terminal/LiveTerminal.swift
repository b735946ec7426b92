/// Redraws a block of lines in place. Owns the cursor: hidden while it draws, shown again by `close`.
struct LiveTerminal: Sendable {
    private let output: Output
    private let hasColour: Bool
    private var drawn: [String] = []
    private var isOpen = false
    private var isClosed = false

    init(output: Output, hasColour: Bool) {
        self.output = output
        self.hasColour = hasColour
    }

    /// Control sequences of ECMA-48 that every terminal since the VT100 knows.
    private enum Control {
        static let hideCursor = "\u{1B}[?25l"
        static let showCursor = "\u{1B}[?25h"
        static let clearToEndOfLine = "\u{1B}[K"
        static let clearBelow = "\u{1B}[J"
        static func up(_ lines: Int) -> String { lines > 0 ? "\u{1B}[\(lines)A" : "" }
    }

    mutating func draw(_ lines: [StyledLine]) {
        let texts = lines.map { $0.text(hasColour: hasColour) }
        guard !isClosed, texts != drawn else { return }
        var out = isOpen ? "" : Control.hideCursor
        isOpen = true
        out += "\r" + Control.up(drawn.count)
        for text in texts { out += text + Control.clearToEndOfLine + "\n" }
        if texts.count < drawn.count { out += Control.clearBelow }
        drawn = texts
        output.write(out)
    }

    /// For good: what is drawn later would go over what was said after the bars.
    mutating func close() {
        isClosed = true
        guard isOpen else { return }
        isOpen = false
        output.write(Control.showCursor)
    }
}
