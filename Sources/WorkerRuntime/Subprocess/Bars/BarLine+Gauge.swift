// Bars that are drawn, with a percentage or counts beside them, and percentages in words.
extension BarLine {
    /// `Downloading ━━━━━━━╸━━━ 45% 0:00:12`, `[#####-----] 45%`, `9/20 ━━━━━━━━━━ 5s`, `1.2/3.4 MB`, `12.3%[==>   ]`.
    static func gauge(_ text: BarText) -> BarLine? {
        guard let bar = drawnBar(text) else { return nil }
        var line = BarLine(style: .gauge)
        // A percentage or counts behind the bar, else in front of it.
        let after = bar.upperBound..<text.count
        let before = 0..<bar.lowerBound
        var titleEnd = bar.lowerBound
        if let (value, start, _) = percentage(text, in: after, isNear: bar.upperBound..<text.count)
            ?? percentage(text, in: before, isNear: 0..<bar.lowerBound, last: true)
        {
            line.percent = value
            titleEnd = min(titleEnd, start)
        }
        if let (done, total, start) = ratio(text, in: after) ?? ratio(text, in: before) {
            line.done = done.value
            line.total = total.value
            line.isExact = done.isWhole && total.isWhole
            titleEnd = min(titleEnd, start)
        }
        guard line.percent != nil || line.total != nil else { return nil }
        if line.percent == nil, let done = line.done, let total = line.total, done > total || total <= 0 { return nil }
        var end = titleEnd
        while end > 0, [UInt8(ascii: " "), UInt8(ascii: "["), UInt8(ascii: "("), UInt8(ascii: "|")].contains(text.byte(end - 1)) {
            end -= 1
        }
        line.title = text.title(0..<end)
        return line
    }

    /// The bar itself: five drawn cells in a row, or ASCII ones in brackets.
    private static func drawnBar(_ text: BarText) -> Range<Int>? {
        var index = 0
        while index < text.count {
            if text.glyph(at: index) != nil {
                var end = index
                var cells = 0
                while let next = text.glyph(at: end) {
                    end = next
                    cells += 1
                }
                // The undone part may be blanks.
                let isFramed = index > 0 && [UInt8(ascii: "["), UInt8(ascii: "|")].contains(text.byte(index - 1))
                if isFramed, let close = frameEnd(text, open: index - 1) { return index - 1..<close }
                if cells >= 5 { return index..<end }
                index = end
                continue
            }
            if [UInt8(ascii: "["), UInt8(ascii: "|")].contains(text.byte(index)), let close = frameEnd(text, open: index) {
                return index..<close
            }
            index += 1
        }
        return nil
    }

    /// The end of a framed bar that opens at `open`: at least five cells and nothing else up to the closing frame.
    private static func frameEnd(_ text: BarText, open: Int) -> Int? {
        let close = text.byte(open) == UInt8(ascii: "[") ? UInt8(ascii: "]") : UInt8(ascii: "|")
        var index = open + 1
        var cells = 0
        while index < text.count, text.byte(index) != close {
            if let next = text.glyph(at: index) {
                index = next
            } else if text.isPlainCell(text.byte(index)) {
                index += 1
            } else {
                return nil
            }
            cells += 1
        }
        return index < text.count && cells >= 5 ? index + 1 : nil
    }

    /// - Parameter isNear: between the percentage and this end of the bar may stand counts, but no words.
    private static func percentage(
        _ text: BarText,
        in range: Range<Int>,
        isNear bar: Range<Int>? = nil,
        last: Bool = false
    ) -> (Double, Int, Int)? {
        var found: (Double, Int, Int)?
        for sign in range where text.byte(sign) == UInt8(ascii: "%") {
            guard let (value, start) = text.percentage(before: sign), start >= range.lowerBound else { continue }
            if let bar {
                let between = last ? sign..<bar.upperBound : bar.lowerBound..<start
                let hasWords = text.bytes[between].contains { BarText.isLetter($0) && !"ofkMGTB".utf8.contains($0) }
                if hasWords { continue }
            }
            found = (value, start, sign + 1)
            if !last { break }
        }
        return found
    }

    private static func ratio(_ text: BarText, in range: Range<Int>) -> (BarText.Number, BarText.Number, Int)? {
        var index = range.lowerBound
        while index < range.upperBound {
            let isStart = index == 0 || [UInt8(ascii: " "), UInt8(ascii: "("), UInt8(ascii: "[")].contains(text.byte(index - 1))
            var end = index
            if isStart, BarText.isDigit(text.byte(index)) || text.glyph(at: index) == nil, let (done, total) = text.ratio(&end), let total {
                return (done, total, index)
            }
            index += 1
        }
        return nil
    }

    // MARK: Words

    /// `45%`, `[ 45%] Building`, `Rendering: 45.5 % done`: a percentage that can hardly be anything but progress. `CPU 45%` is not.
    static func plainPercent(_ text: BarText) -> BarLine? {
        guard let (value, start, end) = percentage(text, in: 0..<text.count) else { return nil }
        // A second percentage: a sentence, or a table.
        if percentage(text, in: end..<text.count) != nil { return nil }
        var line = BarLine(style: .percent)
        line.percent = value
        line.isComplete = true
        // [ 45%] as build tools print it.
        let isBracketed =
            text.byte(end) == UInt8(ascii: "]") && text.bytes[..<start].allSatisfy { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "[") }
            && text.bytes[..<start].contains(UInt8(ascii: "["))
        if isBracketed { return line }
        let closers: Set<UInt8> = [UInt8(ascii: ")"), UInt8(ascii: "]"), UInt8(ascii: "."), UInt8(ascii: " "), UInt8(ascii: ",")]
        let after = words(text.bytes[end...].drop { closers.contains($0) })
        guard let first = after.first else { return line.named(text, 0..<start) }
        return doneWords.contains(first) && after.count <= 2 ? line.named(text, 0..<start) : nil
    }

    /// The line with its title, nil when the words in front of a percentage do not say that it is progress.
    private func named(_ text: BarText, _ range: Range<Int>) -> BarLine? {
        var line = self
        var end = range.upperBound
        let fillers: Set<UInt8> = [
            UInt8(ascii: " "), UInt8(ascii: "["), UInt8(ascii: "("), UInt8(ascii: "-"), UInt8(ascii: "="), UInt8(ascii: "#"),
            UInt8(ascii: "."),
        ]
        while end > range.lowerBound, fillers.contains(text.byte(end - 1)) { end -= 1 }
        line.title = text.title(range.lowerBound..<end)
        let words = Self.words(text.bytes[range.lowerBound..<end])
        if words.isEmpty { return line.title.isEmpty ? line : nil }
        guard words.count <= 4, !words.contains(where: Self.measureWords.contains) else { return nil }
        return words.contains { word in Self.progressStems.contains { word.hasPrefix($0) } } ? line : nil
    }

    /// Lower-case ASCII words.
    private static func words(_ bytes: ArraySlice<UInt8>) -> [String] {
        bytes.split { !BarText.isLetter($0) }.map { word in String(decoding: word.map { byte in byte | 0x20 }, as: UTF8.self) }
    }

    private static let doneWords: Set<String> = ["done", "complete", "completed", "finished", "processed"]

    private static let progressStems = [
        "progress", "done", "complet", "finish", "process", "render", "download", "upload", "load", "generat", "sampl", "extract", "decod",
        "encod", "convert", "export", "import", "copy", "train", "build", "bak", "writ", "read", "scan", "infer", "denois", "step",
        "percent",
    ]

    /// What is measured in percent without being progress.
    private static let measureWords: Set<String> = [
        "cpu", "gpu", "memory", "mem", "ram", "vram", "disk", "usage", "used", "util", "utilization", "utilisation", "load", "accuracy",
        "acc",
        "loss", "error", "errors", "confidence", "score", "coverage", "dropout", "threshold", "quality", "speed", "ratio", "level",
        "volume",
        "opacity", "probability", "precision", "recall", "battery", "rate", "fan", "temperature", "size", "scale", "zoom", "free", "of",
        "reduced",
        "compression", "hit", "hits", "miss", "cache",
    ]
}
