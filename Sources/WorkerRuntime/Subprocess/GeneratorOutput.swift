import Glibc
import ProgressCore

/// Turns what a generator writes into events: progress lines by their meaning, everything else into bounded log lines.
struct GeneratorOutput {
    enum Stream: String {
        case stdout
        case stderr
        case script
        case headway
    }

    /// What the generator said of its end.
    private(set) var resultJSON: String?
    private(set) var error: BackendError?
    /// The last line of stderr, or of the terminal, for the message of a failure that the generator did not explain.
    private(set) var lastErrorLine: [UInt8] = []
    private(set) var garbageLines = 0

    private let events: BackendEvents
    private let errorStream: Stream
    private let mirror: OutputMirror?
    private var progress = LineSplitter(limit: WorkerLimits.progressLineBytes, overlong: .skip, endsAtCarriageReturn: false)
    private var stdout = LineSplitter(limit: WorkerLimits.logLineBytes, overlong: .cut, endsAtCarriageReturn: true)
    private var stderr = LineSplitter(limit: WorkerLimits.logLineBytes, overlong: .cut, endsAtCarriageReturn: true)
    private var budget: LineBudget
    private var dropped = 0
    /// Nil: bars are log lines like any other.
    private var bars: BarTracker?
    private let patterns: [ProgressPattern]
    private var patternBudget: LineBudget
    /// The generator reports its progress itself; bars and patterns are not needed any more.
    private var hasSpoken = false
    /// Ticks of one stage within one read are merged: the newest wins, and nothing else gets lost.
    private var pending: ProgressUpdate?

    /// - Parameters:
    ///   - pipeline: whose patterns are tried, and whose stages bars stand for.
    ///   - readsBars: whether bars are looked for.
    ///   - isMerged: stdout is a terminal that stderr goes to as well.
    ///   - mirror: where else the output goes, nothing of it dropped.
    init(
        events: BackendEvents,
        pipeline: Pipeline,
        readsBars: Bool = true,
        isMerged: Bool = false,
        mirror: OutputMirror? = nil,
        atMs now: Int
    ) {
        self.events = events
        self.mirror = mirror
        errorStream = isMerged ? .stdout : .stderr
        bars = readsBars ? BarTracker(BarNames(pipeline)) : nil
        patterns = pipeline.patterns
        patternBudget = LineBudget(perSecond: WorkerLimits.patternLinesPerSecond, burst: WorkerLimits.patternLinesBurst, atMs: now)
        budget = LineBudget(perSecond: WorkerLimits.logLinesPerSecond, burst: WorkerLimits.logLinesBurst, atMs: now)
    }

    var lastError: String { MessageText.sanitised(String(decoding: lastErrorLine, as: UTF8.self), limit: WorkerLimits.lastLineBytes) }

    // MARK: Progress

    mutating func readProgress(_ bytes: UnsafeRawBufferPointer, atMs now: Int) {
        var splitter = progress
        progress = LineSplitter(limit: 0, overlong: .skip, endsAtCarriageReturn: false)
        let overlongBefore = splitter.overlongLines
        splitter.feed(bytes) { progressLine($0, atMs: now) }
        progress = splitter
        if splitter.overlongLines > overlongBefore { noteOverlong(atMs: now) }
        flush()
    }

    private mutating func noteOverlong(atMs now: Int) {
        log(.headway, "a progress line of more than \(WorkerLimits.progressLineBytes) bytes was skipped", atMs: now)
    }

    private mutating func progressLine(_ bytes: UnsafeRawBufferPointer, atMs now: Int) {
        guard let line = GeneratorLine(Array(bytes)) else {
            garbage(bytes, atMs: now)
            return
        }
        if line.jobClass != nil || line.isCold != nil {
            flush()
            events.send(.hints(jobClass: line.jobClass, isCold: line.isCold))
        }
        if let plan = line.plan {
            flush()
            events.send(.plan(plan))
        }
        if let update = line.update {
            hasSpoken = true
            take(update)
        }
        if let text = line.log { log(.script, text, atMs: now) }
        if let path = line.preview { events.send(.preview(path: path)) }
        if let result = line.resultJSON { resultJSON = result }
        if let error = line.error { self.error = error }
    }

    private mutating func garbage(_ bytes: UnsafeRawBufferPointer, atMs now: Int) {
        garbageLines += 1
        guard garbageLines <= WorkerLimits.shownGarbageLines else { return }
        log(.headway, "not a JSON object on the progress descriptor: " + String(decoding: bytes.prefix(200), as: UTF8.self), atMs: now)
    }

    private mutating func take(_ update: ProgressUpdate) {
        if let pending, update.stage == nil || update.stage == pending.stage {
            self.pending = pending.merged(with: update)
        } else {
            flush()
            pending = update
        }
    }

    private mutating func flush() {
        if let update = pending { events.send(.progress(update)) }
        pending = nil
    }

    // MARK: Bars and log

    mutating func readLog(_ bytes: UnsafeRawBufferPointer, from stream: Stream, atMs now: Int) {
        if let mirror, mirror.unit == .bytes { mirror.write(stream == .stderr, bytes) }
        // The splitter is taken out while its closure changes the rest of self.
        var splitter = stream == .stdout ? stdout : stderr
        put(LineSplitter(limit: 0, overlong: .cut, endsAtCarriageReturn: true), to: stream)
        splitter.feed(bytes) { outputLine($0, from: stream, atMs: now) }
        if !splitter.unfinished.isEmpty { splitter.unfinished.withUnsafeBytes { unfinishedLine($0, from: stream, atMs: now) } }
        put(splitter, to: stream)
        flush()
    }

    private mutating func put(_ splitter: LineSplitter, to stream: Stream) {
        if stream == .stdout { stdout = splitter } else { stderr = splitter }
    }

    private mutating func outputLine(_ bytes: UnsafeRawBufferPointer, from stream: Stream, atMs now: Int) {
        guard Self.mayBeDrawn(bytes) else {
            tryPatterns(bytes, atMs: now)
            plainLine(bytes, shown: bytes, from: stream, atMs: now)
            return
        }
        let pieces = TerminalText.pieces(of: bytes)
        for piece in pieces {
            // A line that is shown elsewhere keeps its colours.
            func plain(_ text: some Collection<UInt8>) {
                Array(text).withUnsafeBytes { plainLine($0, shown: pieces.count == 1 ? bytes : $0, from: stream, atMs: now) }
            }
            if piece.isBlank {
                if piece.linesUp > 0 { bars?.wipe(position: piece.linesUp) }
            } else if tryPatterns(piece.text, atMs: now) {
                plain(piece.text)
            } else if bars != nil, let line = BarLine(piece.text) {
                use(bars?.take(line, text: piece.text, position: piece.linesUp), from: stream, atMs: now)
                // What a script prints while a bar is drawn stands behind it.
                if let rest = line.restStart {
                    piece.text[rest...].withUnsafeBytes { plainLine($0, shown: $0, from: stream, atMs: now) }
                }
            } else {
                plain(piece.text)
            }
        }
    }

    private mutating func plainLine(
        _ bytes: UnsafeRawBufferPointer,
        shown: UnsafeRawBufferPointer,
        from stream: Stream,
        atMs now: Int
    ) {
        if let mirror, mirror.unit == .lines { mirror.write(stream == .stderr, shown) }
        logLine(bytes, from: stream, atMs: now)
    }

    /// True when the line matches a pattern of the pipeline; what it says is taken.
    @discardableResult
    private mutating func tryPatterns(_ bytes: some Collection<UInt8>, atMs now: Int) -> Bool {
        guard !patterns.isEmpty, !hasSpoken, patternBudget.take(atMs: now) else { return false }
        let line = PatternLine(bytes)
        for pattern in patterns {
            if let update = pattern.update(for: line) {
                take(update)
                return true
            }
        }
        return false
    }

    private mutating func unfinishedLine(_ bytes: UnsafeRawBufferPointer, from stream: Stream, atMs now: Int) {
        guard bars != nil, !hasSpoken, Self.mayBeDrawn(bytes), let piece = TerminalText.pieces(of: bytes).last else { return }
        guard let line = BarLine(piece.text), line.isComplete, line.restStart == nil else { return }
        use(bars?.takeUnfinished(line, text: piece.text), from: stream, atMs: now)
    }

    private mutating func use(_ outcome: BarTracker.Outcome?, from stream: Stream, atMs now: Int) {
        guard let outcome else { return }
        if let update = outcome.update, !hasSpoken { take(update) }
        for text in outcome.ended { log(stream, String(decoding: text.prefix(WorkerLimits.barLogBytes), as: UTF8.self), atMs: now) }
    }

    /// A look at the bytes that bars and terminal codes cannot do without: floods of plain lines stay cheap.
    private static func mayBeDrawn(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        // A bar is wiped off with blanks.
        if bytes[0] == 0x20 { return true }
        return [0x25, 0x5b, 0x1b, 0xe2].contains { memchr(base, $0, bytes.count) != nil }
    }

    private mutating func logLine(_ bytes: UnsafeRawBufferPointer, from stream: Stream, atMs now: Int) {
        if stream == errorStream {
            lastErrorLine.removeAll(keepingCapacity: true)
            lastErrorLine.append(contentsOf: bytes.prefix(WorkerLimits.lastLineBytes))
        }
        guard budget.take(atMs: now) else {
            dropped += 1
            return
        }
        send(stream, String(decoding: bytes, as: UTF8.self))
    }

    private mutating func log(_ stream: Stream, _ text: String, atMs now: Int) {
        guard budget.take(atMs: now) else {
            dropped += 1
            return
        }
        send(stream, text)
    }

    private mutating func send(_ stream: Stream, _ text: String) {
        reportDropped()
        events.send(.log(stream: stream.rawValue, text: MessageText.sanitised(text, limit: WorkerLimits.logLineBytes)))
    }

    private mutating func reportDropped() {
        if dropped > 0 { events.send(.logDropped(dropped)) }
        dropped = 0
    }

    /// Takes in what had no line end, and tells what was dropped.
    mutating func finish(atMs now: Int) {
        var splitter = progress
        splitter.finish { progressLine($0, atMs: now) }
        flush()
        for stream in [Stream.stdout, .stderr] {
            var splitter = stream == .stdout ? stdout : stderr
            splitter.finish { outputLine($0, from: stream, atMs: now) }
        }
        flush()
        for text in bars?.finish() ?? [] {
            send(errorStream, String(decoding: text.prefix(WorkerLimits.barLogBytes), as: UTF8.self))
        }
        if garbageLines > WorkerLimits.shownGarbageLines {
            send(.headway, "\(garbageLines) lines on the progress descriptor were no JSON objects")
        }
        reportDropped()
    }
}
