/// One state of a progress bar, as it was drawn on one line.
struct BarLine: Hashable {
    enum Style: Hashable {
        /// Counts, and the time since the start: tqdm and its kin.
        case meter
        /// A drawn bar with a percentage or counts.
        case gauge
        /// A percentage in words.
        case percent
    }

    var style: Style
    /// What the bar says of itself, without the colon behind it; empty when it says nothing.
    var title = ""
    var done: Double?
    /// Nil when it is not known.
    var total: Double?
    /// Counts are whole numbers, not rounded to a magnitude.
    var isExact = false
    /// As printed, 0…100; rounded.
    var percent: Double?
    /// Seconds since the bar's start.
    var elapsed: Int?
    /// The line has its whole end: it may be read although its line end is still to come.
    var isComplete = false
    /// Where what was printed behind the bar on the same line begins.
    var restStart: Int?

    /// 0…1, the most precise that is known; nil when only a count is.
    var fraction: Double? {
        guard let done, let total, total > 0 else { return percent.map { $0 / 100 } }
        let exact = min(max(done / total, 0), 1)
        // The two come from one bar, so that a difference means that one of them was misread; the percentage is the simpler one.
        guard let percent else { return exact }
        if abs(exact * 100 - percent) > Self.rounding { return percent / 100 }
        // Counts in magnitudes of 1024 are off by up to 2.4 % per magnitude; the percentage is rounded, and right.
        return isExact ? exact : min(max(exact, (percent - 0.5) / 100), (percent + 0.5) / 100)
    }

    /// Of a percentage to whole points and of counts to three digits in magnitudes of 1000 or 1024, together.
    static let rounding = 3.0

    init(style: Style) { self.style = style }

    /// Nil for what is not a bar.
    init?(_ bytes: [UInt8]) {
        let text = BarText(bytes: bytes)
        var last = -1
        var percents: [Int] = []
        for index in bytes.indices where bytes[index] == UInt8(ascii: "%") {
            // More signs than that are no bar's.
            if percents.count < 8 { percents.append(index) }
            last = index
        }
        for sign in percents {
            if let line = Self.meter(text, percentAt: sign) {
                self = line
                return
            }
        }
        if let line = Self.counter(text) ?? Self.gauge(text) ?? (last < 0 ? nil : Self.plainPercent(text)) {
            self = line
            return
        }
        return nil
    }
}

// MARK: tqdm

extension BarLine {
    /// `desc:  45%|████▌     | 9/20 [00:05<00:06,  1.80it/s, loss=0.1]`, also without the bar (`ncols=0`), and cut anywhere behind
    /// the bar's start by a narrow terminal (tqdm 4.70, `std.py`, `format_meter`).
    private static func meter(_ text: BarText, percentAt sign: Int) -> BarLine? {
        guard let (percent, start) = text.percentage(before: sign) else { return nil }
        var line = BarLine(style: .meter)
        line.title = text.title(0..<start)
        line.percent = percent
        var index = sign + 1
        if text.byte(index) == UInt8(ascii: "|") {
            let inside = index + 1
            guard let counts = counts(text, behindBarFrom: inside) else {
                // The counts were cut off, or never drawn.
                let end = text.bytes[inside...].lastIndex(of: UInt8(ascii: "|")) ?? text.count
                guard end > inside, text.isGauge(inside..<end) else { return nil }
                return line
            }
            index = counts
        } else {
            text.skipBlanks(&index)
        }
        return line.readCounts(text, &index, needsClock: text.byte(sign + 1) != UInt8(ascii: "|")) ? line : nil
    }

    /// Where the counts begin behind the bar whose inside begins at `inside`.
    private static func counts(_ text: BarText, behindBarFrom inside: Int) -> Int? {
        for index in inside..<max(inside, text.count) where text.byte(index) == UInt8(ascii: "|") {
            var counts = index + 1
            text.skipBlanks(&counts, atMost: 12)
            var end = counts
            if text.ratio(&end) != nil { return counts }
        }
        return nil
    }

    /// Counts and times from `index` on; false when the line is no bar after all.
    private mutating func readCounts(_ text: BarText, _ index: inout Int, needsClock: Bool) -> Bool {
        guard let (done, total) = text.ratio(&index) else { return false }
        let isCut = index == text.count
        // A unit may stand between the counts and the times.
        var bracket = index
        while bracket < text.count, bracket - index < 24, text.byte(bracket) != UInt8(ascii: "[") { bracket += 1 }
        if text.byte(bracket) == UInt8(ascii: "[") {
            var clock = bracket + 1
            if let elapsed = text.clock(&clock) {
                self.elapsed = elapsed
                if let end = text.closing(of: bracket) {
                    isComplete = true
                    if end < text.count { restStart = end }
                }
            } else if needsClock {
                return false
            }
        } else if needsClock {
            return false
        }
        self.done = done.value
        self.total = total?.value
        isExact = done.isWhole && total?.isWhole ?? true
        if isCut, let percent, let total, abs(done.value / max(total.value, 1) * 100 - percent) > 0.51 {
            // The end of the total is missing.
            self.done = nil
            self.total = nil
        }
        return true
    }

    /// `desc: 7it [00:03,  2.33it/s]`: a bar that does not know its total.
    private static func counter(_ text: BarText) -> BarLine? {
        for bracket in text.bytes.indices where text.byte(bracket) == UInt8(ascii: "[") {
            var index = bracket + 1
            guard bracket > 1, text.byte(bracket - 1) == UInt8(ascii: " ") else { continue }
            guard let elapsed = text.clock(&index), text.byte(index) == UInt8(ascii: ",") else { continue }
            index += 1
            let end = text.closing(of: bracket)
            guard isRate(text, index..<(end ?? text.count), isCut: end == nil) else { continue }
            // The count is the number behind the last colon, or at the start of the line.
            var start = bracket - 1
            while start > 0, !(text.byte(start - 1) == UInt8(ascii: " ") && start > 1 && text.byte(start - 2) == UInt8(ascii: ":")) {
                start -= 1
            }
            text.skipBlanks(&start)
            var number = start
            guard let done = text.number(&number, isScaled: true), bracket - number <= 40 else { continue }
            var line = BarLine(style: .meter)
            line.title = text.title(0..<start)
            line.done = done.value
            line.isExact = done.isWhole
            line.elapsed = elapsed
            line.isComplete = end != nil
            if let end, end < text.count { line.restStart = end }
            return line
        }
        return nil
    }

    /// `  2.33it/s`, ` ?it/s`, ` 12.50s/it`.
    private static func isRate(_ text: BarText, _ range: Range<Int>, isCut: Bool) -> Bool {
        var index = range.lowerBound
        text.skipBlanks(&index)
        if index >= range.upperBound { return isCut }
        if text.byte(index) == UInt8(ascii: "?") {
            index += 1
        } else if text.number(&index, isScaled: true) == nil {
            return false
        }
        let limit = min(range.upperBound, index + 32)
        if isCut, limit == range.upperBound { return true }
        return text.bytes[index..<max(index, limit)].contains(UInt8(ascii: "/"))
    }
}
