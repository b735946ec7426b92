/// A progress bar that is or was on the screen, with what is known of it.
struct Bar {
    /// The kind of bar: its title without numbers.
    var key: String
    private(set) var firstTitle: String
    var title: String
    let style: BarLine.Style
    /// Lines below the first bar, where it is drawn.
    var position: Int
    var done: Double?
    var total: Double?
    var fraction: Double?
    var isExact: Bool
    var elapsed: Int?
    /// As it was drawn last, for the log.
    var text: [UInt8]
    /// It was seen again after another bar had been drawn in its place: the two take turns, and neither ends the other.
    var takesTurns = false
    /// Numbers of the lines on which it was drawn first and last.
    let firstLine: Int
    var lastLine: Int
    /// It was wiped off the screen, as tqdm does when a nested bar ends; drawn again it is back.
    var isWiped = false
    /// A bar within this one, for as long as this one does not tick.
    var inner: (fraction: Double, done: Double?, total: Double?)?
    /// Bars that began within the current tick.
    var innerBars = 0
    /// Each tick of this bar holds one other bar, whose fraction is that of the tick.
    var holdsOneBarPerTick = true

    init(_ line: BarLine, position: Int, text: [UInt8], number: Int) {
        firstLine = number
        lastLine = number
        key = BarNames.key(line.title)
        firstTitle = line.title
        title = line.title
        style = line.style
        self.position = position
        done = line.done
        total = line.total
        fraction = line.fraction
        isExact = line.isExact
        elapsed = line.elapsed
        self.text = text
    }

    var isFinished: Bool {
        if let done, let total { return done >= total }
        return fraction.map { $0 >= 1 } ?? false
    }

    /// Whether `line` shows this bar some time later, and not another one like it that begins.
    func continues(as line: BarLine) -> Bool {
        guard line.style == style else { return false }
        // tqdm forgets a total that was passed.
        let hasPassedTotal = line.total == nil && total != nil && (line.done ?? 0) > (total ?? 0)
        // Cut off by a narrow terminal.
        let isCut = line.done == nil && line.percent != nil
        guard line.total == total || hasPassedTotal || isCut || done == nil else { return false }
        if let elapsed, let later = line.elapsed, later < elapsed { return false }
        if let done, let later = line.done { return later >= done }
        guard let fraction, let later = line.fraction else { return true }
        // Percentages are rounded, and an estimate in words may fall a little: only a large step back is a new start.
        return style == .meter ? later + 0.011 >= fraction : later > fraction / 2 || later + 0.05 >= fraction
    }

    /// Takes the later state; false when nothing moved.
    mutating func take(_ line: BarLine, text: [UInt8]) -> Bool {
        let before = (done, fraction, title)
        isWiped = false
        if line.total == nil, let total, let count = line.done, count >= total {
            done = total
            fraction = 1
        } else {
            // Cut off counts, or an estimate that fell: what was shown is held.
            if let count = line.done { done = count }
            if let fresh = line.fraction { fraction = max(fraction ?? 0, fresh) }
            total = line.total ?? total
            isExact = line.done == nil ? isExact : line.isExact
        }
        elapsed = line.elapsed ?? elapsed
        title = line.title
        // Titled right after its start.
        if firstTitle.isEmpty, before.0 == 0 { firstTitle = title }
        key = BarNames.key(line.title)
        self.text = text
        if before.0 != done {
            inner = nil
            innerBars = 0
        }
        return before != (done, fraction, title)
    }
}
