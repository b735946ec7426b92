import ProgressCore
import Synchronization

/// Prints each event as the JSON line it came as.
struct JSONLinesSink: WatchSink {
    let output: Output

    func event(_ event: JobEvent, raw: String, job: String) { output.line(raw.contains("\n") ? raw.filter { !$0.isNewline } : raw) }
    func link(_ link: JobView.Link, job: String) {}
}

/// Keeps what is seen of all watched jobs and shows it: bars on a terminal, lines elsewhere.
final class WatchBoard: WatchSink {
    private struct State {
        var views: [JobView]
        var plain: PlainLines
        var terminal: LiveTerminal
    }

    private let state: Mutex<State>
    private let renderer: BarRenderer
    private let output: Output
    private let isLive: Bool
    private let start = ContinuousClock.now

    init(jobs: [String], stages: [String: [String]], output: Output, style: TerminalStyle) {
        self.output = output
        isLive = style.isLive
        renderer = BarRenderer(glyphs: style.isUnicode ? .unicode : .ascii)
        state = Mutex(
            State(
                views: jobs.map { JobView(job: $0, stages: stages[$0] ?? []) },
                plain: PlainLines(namesJobs: jobs.count > 1),
                terminal: LiveTerminal(output: output, hasColour: style.hasColour)
            )
        )
    }

    private var now: Duration { .now - start }

    func event(_ event: JobEvent, raw: String, job: String) {
        update(job) { view, now in view.apply(event, at: now) }
    }

    func link(_ link: JobView.Link, job: String) {
        update(job) { view, _ in
            view.link = link
            return .none
        }
    }

    func close(_ job: String, _ end: JobEnd) {
        update(job) { view, _ in
            guard view.end == nil else { return .none }
            view.close(end)
            return .milestone
        }
    }

    /// The newest event of a job.
    func lastEvent(of job: String) -> JobEvent? {
        state.withLock { state in state.views.first { $0.job == job }?.event }
    }

    private func update(_ job: String, _ body: (inout JobView, Duration) -> JobView.Change) {
        state.withLock { state in
            guard let index = state.views.firstIndex(where: { $0.job == job }) else { return }
            let change = body(&state.views[index], now)
            guard !isLive, let line = state.plain.line(for: state.views[index], change: change, now: now) else { return }
            output.line(line)
        }
    }

    /// Redraws until cancelled; then draws the end and gives the cursor back.
    func run() async {
        guard isLive else { return }
        while !Task.isCancelled {
            draw()
            try? await Task.sleep(for: .milliseconds(1000 / Limits.framesPerSecond))
        }
        draw()
        restore()
    }

    /// Gives the cursor back; harmless when repeated.
    func restore() { state.withLock { $0.terminal.close() } }

    private func draw() {
        let size = output.size ?? (80, 24)
        state.withLock { state in
            let lines = renderer.lines(for: &state.views, width: size.columns, height: size.rows - 1, now: now)
            state.terminal.draw(lines)
        }
    }
}

/// What the terminal can do and the user wants.
struct TerminalStyle: Sendable, Equatable {
    var isLive: Bool
    var hasColour: Bool
    var isUnicode: Bool

    /// `NO_COLOR` (no-color.org), `TERM=dumb` and the locale decide besides the terminal itself.
    init(isTerminal: Bool, environment: [String: String]) {
        let isDumb = environment["TERM"] == "dumb"
        isLive = isTerminal && !isDumb
        hasColour = isLive && (environment["NO_COLOR"] ?? "").isEmpty
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].lazy.compactMap { environment[$0] }.first { !$0.isEmpty } ?? ""
        isUnicode = !isTerminal || locale.uppercased().contains("UTF-8") || locale.uppercased().contains("UTF8")
    }
}
