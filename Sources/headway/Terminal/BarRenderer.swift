import ProgressCore

/// Draws jobs as lines of text: a pure function of state, time and width.
struct BarRenderer: Sendable {
    /// Characters for terminals that speak UTF-8, and for those that do not.
    struct Glyphs: Sendable {
        var full: String
        var empty: String
        var done: String
        var current: String
        var pending: String
        var failed: String

        static let unicode = Glyphs(full: "█", empty: "░", done: "✓", current: "▸", pending: "·", failed: "✗")
        static let ascii = Glyphs(full: "#", empty: "-", done: "+", current: ">", pending: ".", failed: "x")
    }

    var glyphs = Glyphs.unicode

    /// The lines for all jobs, none wider than `width` columns and at most `height` lines.
    /// - Parameter now: On the clock of the views.
    func lines(for views: inout [JobView], width: Int, height: Int, now: Duration) -> [StyledLine] {
        let width = min(max(width, Limits.narrowestTerminal), Limits.widestTerminal)
        let hasStages = views.count * 2 <= max(height, 2)
        var lines: [StyledLine] = []
        let nameWidth = min(views.map { TextWidth.columns(of: $0.job) }.max() ?? 0, max(8, width / 4))
        let shown = views.indices.prefix { hasStages || $0 < max(height, 2) - 1 || $0 == views.count - 1 }
        let rows = shown.map { row(&views[$0], nameWidth: nameWidth, width: width, now: now) }
        // One length for all, so that they can be compared.
        let columns = min(rows.compactMap(\.room).min() ?? 0, Self.longestBar)
        for (index, row) in zip(shown, rows) {
            lines.append(row.line(bar: bar(row.percent, columns: columns, style: row.style), width: width))
            if hasStages, let line = stageLine(views[index], width: width) { lines.append(line) }
        }
        if rows.count < views.count { lines.append(StyledLine("and \(views.count - rows.count) more", .dim).cut(to: width)) }
        return lines
    }

    // MARK: The bar

    /// What stands around a bar.
    private struct Row {
        var percent = 0.0
        var style = StyledLine.Style.plain
        var name = StyledLine()
        var tail = StyledLine()
        var note = StyledLine()
        /// Columns left for the bar: beside everything, or without the note; nil when there are too few.
        var room: Int?

        /// What gives way first when the terminal is narrow: the estimate, then the bar.
        func line(bar: StyledLine, width: Int) -> StyledLine {
            var line = name
            if room != nil {
                line.append(" ")
                line.append(bar)
            }
            line.append(tail)
            if room != nil, line.width + note.width <= width { line.append(note) }
            return line.cut(to: width)
        }
    }

    private func row(_ view: inout JobView, nameWidth: Int, width: Int, now: Duration) -> Row {
        var row = Row()
        row.percent = view.drawnPercent(at: now)
        row.name.append(pad(TextWidth.cut(TextWidth.printable(view.job), to: nameWidth), to: nameWidth), .bold)
        let percentText = ProgressText.percent(row.percent)
        let (status, style) = status(of: view)
        row.style = style
        row.tail.append(" " + String(repeating: " ", count: max(0, 7 - percentText.count)) + percentText, .bold)
        row.tail.append("  ")
        row.tail.append(status, style)
        if let text = note(of: view, now: now) {
            row.note.append("  ")
            row.note.append(text, .dim)
        }
        let bare = width - nameWidth - 1 - row.tail.width
        row.room = [bare - row.note.width, bare].first { $0 >= Self.shortestBar }
        return row
    }

    private static let shortestBar = 6
    private static let longestBar = 60

    private func bar(_ percent: Double, columns: Int, style: StyledLine.Style) -> StyledLine {
        let filled = min(columns, max(0, Int(Double(columns) * percent / 100)))
        var line = StyledLine(String(repeating: glyphs.full, count: filled), style == .plain ? .cyan : style)
        line.append(String(repeating: glyphs.empty, count: columns - filled), .dim)
        return line
    }

    private func status(of view: JobView) -> (String, StyledLine.Style) {
        switch view.end {
        case .complete: (glyphs.done + " " + ProgressText.end(of: view), .green)
        case .failed, .absent, .linkLost, .refused: (glyphs.failed + " " + ProgressText.end(of: view), .red)
        case .cancelled: (glyphs.failed + " " + ProgressText.end(of: view), .yellow)
        case nil: (ProgressText.phase(of: view), .plain)
        }
    }

    private func note(of view: JobView, now: Duration) -> String? {
        guard view.end == nil else { return nil }
        if view.link == .connecting || view.link == .lost { return view.event == nil ? "connecting" : "reconnecting" }
        if view.isDegraded { return "the gateway has lost its Redis, waiting" }
        guard let event = view.event else { return nil }
        if event.phase == .queued { return ProgressText.start(of: view, at: now) }
        let attempt = (event.attempt ?? 1) > 1 ? "attempt \(event.attempt ?? 1), " : ""
        let eta = ProgressText.eta(of: event, ageMs: view.ageMs(at: now))
        return eta.map { attempt + $0 } ?? (attempt.isEmpty ? nil : String(attempt.dropLast(2)))
    }

    // MARK: The stages

    private func stageLine(_ view: JobView, width: Int) -> StyledLine? {
        guard let event = view.event, event.phase != .queued else { return nil }
        if let children = event.children { return StyledLine("  " + ProgressText.children(children)).cut(to: width) }
        guard !view.stages.isEmpty else { return nil }
        let current = event.stage.flatMap { view.stages.firstIndex(of: $0) }
        let done = view.end == .complete ? view.stages.count : current ?? 0
        let detail = ProgressText.stage(of: event)
        let room = width - 2

        var all = StyledLine("  ")
        for (index, stage) in view.stages.enumerated() {
            if index > 0 { all.append("  ") }
            if index < done {
                all.append("\(glyphs.done) \(stage)", .green)
            } else if index == current {
                all.append("\(glyphs.current) \(detail)", .bold)
            } else {
                all.append("\(glyphs.pending) \(stage)", .dim)
            }
        }
        if all.width <= room { return all }

        var short = StyledLine("  ")
        if done > 0 { short.append("\(glyphs.done) \(done) done", .green) }
        if done < view.stages.count {
            if done > 0 { short.append("  ") }
            if current != nil { short.append("\(glyphs.current) \(detail)", .bold) }
            let rest = view.stages.count - done - (current == nil ? 0 : 1)
            if rest > 0 { short.append("  \(glyphs.pending) \(rest) more", .dim) }
        }
        return short.cut(to: width)
    }

    private func pad(_ text: String, to columns: Int) -> String {
        text + String(repeating: " ", count: max(0, columns - TextWidth.columns(of: text)))
    }
}
