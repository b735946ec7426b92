import ProgressCore

/// Follows the bars of one generator and says what they mean for its job.
///
/// **Whose bar.** tqdm draws its n-th nested bar n lines below the first one. A bar that begins where another one is ends that
/// one, finished or not, and those below it, unless both are seen again: then they take turns on one line. Of the bars that are
/// left unfinished the first one that began is in charge: it encloses the others, which only refine it. If every one of its ticks
/// holds exactly one other bar, that bar's fraction is added to the tick; as soon as a tick holds two, or a bar spans two ticks,
/// only the ticks count. Where the enclosing bar does not know its total, the one within is in charge.
///
/// **Same or new.** A bar goes on as long as its count and its clock do not fall; its title may change (it is then the message).
/// A bar of the same kind that begins anew is the next round of the same stage: the tracker of the job never goes back, so the
/// bar holds. `Epoch 3/10` in a title tells which round it is, and is used.
struct BarTracker {
    struct Outcome: Hashable {
        /// Nil when nothing moved, or nothing that counts.
        var update: ProgressUpdate?
        /// Last states of bars that came to an end, for the log.
        var ended: [[UInt8]] = []
    }

    private let names: BarNames
    private var active: [Bar] = []
    /// Unfinished bars that another one was drawn over, the newest last.
    private var covered: [Bar] = []
    private var lines = 0
    private var hasSeenTitle = false
    private var last: ProgressUpdate?
    /// Stages that were reported with a number of steps: a later count without a total must not be taken for steps of those.
    private var stagesWithSteps: Set<String?> = []

    init(_ names: BarNames) {
        self.names = names
    }

    mutating func take(_ line: BarLine, text: [UInt8], position: Int) -> Outcome {
        var outcome = Outcome()
        lines += 1
        if !line.title.isEmpty { hasSeenTitle = true }
        let (index, isNews) = place(line, text: text, position: position, outcome: &outcome)
        guard isNews, let lead = leader(touched: index) else { return outcome }
        refine(lead, by: index)
        let update = update(for: active[lead])
        if update != last {
            last = update
            outcome.update = update
        }
        return outcome
    }

    /// Takes a bar whose line has not ended yet: tqdm ends a line only when it draws the next one, which may be minutes later.
    ///
    /// What comes next may still move the cursor up, so that the place of the bar is not known: it counts only when it is
    /// clear which bar it is.
    mutating func takeUnfinished(_ line: BarLine, text: [UInt8]) -> Outcome {
        let key = BarNames.key(line.title)
        let known = active.filter { $0.key == key && $0.continues(as: line) }
        if known.count == 1 { return take(line, text: text, position: known[0].position) }
        // `45%` may be the beginning of a longer line.
        guard line.style == .meter, !active.contains(where: { !$0.isFinished && !$0.isWiped }) else { return Outcome() }
        return take(line, text: text, position: 0)
    }

    /// The line that lies `position` lines below the first one was made blank.
    mutating func wipe(position: Int) {
        for index in active.indices where active[index].position == position { active[index].isWiped = true }
    }

    /// The last states of bars that did not end before the generator did.
    mutating func finish() -> [[UInt8]] {
        let texts = active.filter { !$0.isFinished && isLogged($0) }.map(\.text)
        active = []
        covered = []
        return texts
    }

    // MARK: Which bar it is

    /// Finds or makes the bar that `line` shows, and gives its place among the active ones. A finished bar that is drawn once
    /// more is no news.
    private mutating func place(
        _ line: BarLine,
        text: [UInt8],
        position: Int,
        outcome: inout Outcome
    ) -> (index: Int, isNews: Bool) {
        if let index = index(of: line, position: position) {
            let wasFinished = active[index].isFinished
            let ticksBefore = active[index].done
            let hadUnfinishedInner = active[(index + 1)...].contains { !$0.isFinished && !$0.isWiped }
            _ = active[index].take(line, text: text)
            active[index].lastLine = lines
            if active[index].position > position { active[index].isWiped = true }
            if active[index].done != ticksBefore, hadUnfinishedInner { active[index].holdsOneBarPerTick = false }
            if active[index].isFinished, !wasFinished, isLogged(active[index]) { outcome.ended.append(text) }
            let isNews = !(wasFinished && active[index].isFinished)
            return (retireForgotten(behind: index, outcome: &outcome), isNews)
        }
        let key = BarNames.key(line.title)
        if let back = covered.lastIndex(where: { $0.key == key && $0.position == position && $0.continues(as: line) }) {
            // It was not over: the bar that was drawn over it takes turns with it.
            var bar = covered.remove(at: back)
            bar.takesTurns = true
            _ = bar.take(line, text: text)
            let index = active.firstIndex { $0.position >= position } ?? active.count
            active.insert(bar, at: index)
            return (index, true)
        }
        retire(from: position, by: line.style, outcome: &outcome)
        if active.count == WorkerLimits.bars { active.removeLast() }
        active.append(Bar(line, position: position, text: text, number: lines))
        if active[active.count - 1].isFinished, isLogged(active[active.count - 1]) { outcome.ended.append(text) }
        return (active.count - 1, true)
    }

    private func index(of line: BarLine, position: Int) -> Int? {
        let key = BarNames.key(line.title)
        func first(_ holds: (Bar) -> Bool) -> Int? { active.firstIndex { holds($0) && $0.continues(as: line) } }
        if let index = stayingBar(line, key: key, position: position) { return index }
        if let index = first({ $0.key == key && $0.position == position }) { return index }
        return first { $0.position == position && !$0.takesTurns && isSameWithNewTitle($0, line) }
    }

    /// A nested bar that stays is drawn once more in the first line when it ends. That may look like the end of the bar around it,
    /// where both have no title and the same total.
    private func stayingBar(_ line: BarLine, key: String, position: Int) -> Int? {
        guard position == 0, line.fraction == 1 else { return nil }
        return active.firstIndex { $0.key == key && $0.position > 0 && !$0.isWiped && $0.continues(as: line) }
    }

    /// One bar whose title tells what it is at. A new bar would start from nothing.
    private func isSameWithNewTitle(_ bar: Bar, _ line: BarLine) -> Bool {
        guard bar.style == .meter, !bar.isFinished || line.done == bar.done && line.elapsed == bar.elapsed else { return false }
        guard bar.total == line.total, let done = line.done, bar.done != nil else { return false }
        if done > 0 { return true }
        // Titled right after its start.
        return bar.done == 0 && bar.firstTitle.isEmpty
    }

    /// Ends what is drawn at `position` and below, because a bar begins there. Only a meter tells that by its place.
    private mutating func retire(from position: Int, by style: BarLine.Style, outcome: inout Outcome) {
        func isOver(_ bar: Bar) -> Bool {
            bar.position >= position && (bar.isFinished || !bar.takesTurns && (style == .meter || bar.style == .meter))
        }
        for bar in active where isOver(bar) && !bar.isFinished {
            if !bar.isWiped { covered.append(bar) }
            if isLogged(bar) { outcome.ended.append(bar.text) }
        }
        if covered.count > WorkerLimits.bars { covered.removeFirst(covered.count - WorkerLimits.bars) }
        active.removeAll { isOver($0) || $0.isWiped && $0.position >= position }
    }

    /// Programs that draw several bars below each other draw all of them again for each step: one that was not drawn since the bar at
    /// `index` began is over. Only for bars that tell neither their place nor their time. Gives the new place of that bar.
    private mutating func retireForgotten(behind index: Int, outcome: inout Outcome) -> Int {
        guard active[index].style != .meter, active[index].fraction ?? 0 > 0 else { return index }
        let first = active[index].firstLine
        for other in active.indices.prefix(index).reversed() where active[other].style != .meter && active[other].lastLine < first {
            if !active[other].isFinished, isLogged(active[other]) { outcome.ended.append(active[other].text) }
            active.remove(at: other)
        }
        return active.firstIndex { $0.firstLine == first } ?? 0
    }

    /// Nested bars come and go by the thousand; one line for each outer one is enough.
    private func isLogged(_ bar: Bar) -> Bool {
        guard let first = active.first(where: { !$0.isFinished && !$0.isWiped }) else { return true }
        return bar.position <= first.position || first.total == nil
    }

    // MARK: What it means

    /// The bar that speaks for the job, after `touched` moved.
    private func leader(touched: Int) -> Int? {
        let candidates = active.indices.filter { $0 == touched || !active[$0].isFinished && !active[$0].isWiped }
        guard let first = candidates.first else { return nil }
        if active[first].fraction != nil { return first }
        return candidates.first { active[$0].fraction != nil } ?? first
    }

    /// Takes what the bar at `touched` says into the one that encloses it.
    private mutating func refine(_ lead: Int, by touched: Int) {
        guard touched > lead, let fraction = active[touched].fraction else { return }
        let bar = active[touched]
        let isNew = active[lead].inner == nil || fraction < active[lead].inner?.fraction ?? 0 || bar.total != active[lead].inner?.total
        if isNew {
            active[lead].innerBars += 1
            if active[lead].innerBars > 1 { active[lead].holdsOneBarPerTick = false }
        }
        active[lead].inner = (fraction, bar.isExact ? bar.done : nil, bar.total)
    }

    private mutating func update(for bar: Bar) -> ProgressUpdate {
        let meaning = names.meaning(of: bar.title, isFirst: !hasSeenTitle)
        let first = bar.title == bar.firstTitle ? meaning : names.meaning(of: bar.firstTitle, isFirst: !hasSeenTitle)
        // A title that changes along the way is what the stage is at, unless it names a stage of the pipeline.
        let isRenamed = meaning.stage != first.stage && !bar.firstTitle.isEmpty && !names.isOwnStage(meaning.stage)
        let part = isRenamed ? first : meaning
        var update = ProgressUpdate(stage: part.stage)
        if bar.title != bar.firstTitle || BarNames.round(bar.title) != nil { update.message = bar.title }
        guard var fraction = bar.fraction else {
            if bar.isExact, !stagesWithSteps.contains(part.stage) { update.step = Self.whole(bar.done) }
            return update
        }
        var isPlain = part.isWhole
        var (done, total) = (bar.done, bar.total)
        if bar.holdsOneBarPerTick, let inner = bar.inner, let ticks = bar.done, let all = bar.total, all > 0 {
            fraction = min(1, (ticks + inner.fraction) / all)
            (done, total) = (inner.done, inner.total)
            isPlain = false
        }
        if let round = BarNames.round(bar.title) {
            fraction = (max(round.index, 1) - 1 + fraction) / round.of
            isPlain = false
        }
        if bar.isExact, let total, total <= Double(ProgressLimits.steps) {
            update.step = Self.whole(done)
            update.steps = Self.whole(total)
            stagesWithSteps.insert(part.stage)
        } else {
            isPlain = false
        }
        // Steps alone tell the tracker more than a percentage does, where they are the whole truth.
        if !isPlain || update.steps == nil { update.percent = part.from + (part.to - part.from) * fraction }
        return update
    }

    private static func whole(_ value: Double?) -> Int? {
        value.flatMap { $0 >= 0 && $0 <= Double(ProgressLimits.steps) ? Int($0) : nil }
    }
}
