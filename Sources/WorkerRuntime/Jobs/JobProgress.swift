import JobStore
import ProgressCore
import Synchronization

/// What is known of a running job and not yet written: the meeting place of the backend, on whatever thread it calls, and the
/// reporter. Bounded: the newest state, a few phase and stage changes, some log lines, one preview.
///
/// A job that says nothing and that nobody looks at has no tracker: it is made when it is needed first.
final class JobProgress: Sendable {
    /// What a tracker begins with.
    struct Start: Sendable {
        var pipeline: Pipeline
        var plan: [PlannedStage] = []
        var statistics = LearnedStatistics()
        var hints = JobHints()
    }

    private struct State {
        var tracker: ProgressTracker?
        /// Phase and stage changes that were not written yet, as they were when they happened.
        var milestones: [ProgressState] = []
        var lines: [LogLine] = []
        var droppedLines = 0
        var preview: String?
        /// What was said last, and when it was something new.
        var lastUpdate: ProgressUpdate?
        var lastNewsAtMs: Int
        /// When the reporter looks again without being told.
        var wakeAtMs = Int.min
        /// Told that there is something to write at once, and of the end; nil after it.
        var onNews: (@Sendable () -> Void)?
        var isClosed: Bool { onNews == nil }
    }

    private let state: Mutex<State>
    private let start: Start
    private let startedAtMs: Int
    private let nowMs: @Sendable () -> Int
    private let minimumGapMs: Int

    /// - Parameter onNews: must not call back; may come from any thread, and for the last time when the progress is closed.
    init(_ start: Start, policy: ReportPolicy, nowMs: @escaping @Sendable () -> Int, onNews: @escaping @Sendable () -> Void) {
        self.start = start
        startedAtMs = nowMs()
        state = Mutex(State(lastNewsAtMs: startedAtMs, onNews: onNews))
        self.nowMs = nowMs
        minimumGapMs = policy.minimumGapMs
    }

    private func withTracker<R>(_ state: inout State, _ body: (inout ProgressTracker) -> R) -> R {
        if state.tracker == nil {
            state.tracker = ProgressTracker(
                pipeline: start.pipeline,
                plan: start.plan,
                statistics: start.statistics,
                hints: start.hints,
                startedAtMs: startedAtMs
            )
        }
        // Made just now, if it was not there.
        return body(&state.tracker!)
    }

    /// Takes in one event of the backend; never blocks for long.
    func receive(_ event: BackendEvent) {
        let now = nowMs()
        let onNews = state.withLock { state -> (@Sendable () -> Void)? in
            switch event {
            case .progress(let update):
                // A generator that repeats itself makes no progress.
                if update != state.lastUpdate { state.lastNewsAtMs = now }
                state.lastUpdate = update
                let milestone = withTracker(&state) { $0.apply(update, atMs: now) ? $0.state(atMs: now) : nil }
                if let milestone {
                    if state.milestones.count == WorkerLimits.pendingMilestones { state.milestones.removeFirst() }
                    state.milestones.append(milestone)
                    return state.onNews
                }
            case .plan(let plan): withTracker(&state) { $0.adopt(plan) }
            case .hints(let jobClass, let isCold): withTracker(&state) { $0.adopt(jobClass: jobClass, isCold: isCold) }
            case .log(let stream, let text):
                if state.lines.count == WorkerLimits.pendingLogLines {
                    state.lines.removeFirst(WorkerLimits.pendingLogLines / 10)
                    state.droppedLines += WorkerLimits.pendingLogLines / 10
                }
                state.lines.append(LogLine(stream: stream, text: text))
            case .logDropped(let count): state.droppedLines += count
            case .preview(let path): state.preview = path
            }
            // A tick is news only when nobody is going to look soon anyway.
            return state.wakeAtMs > now + minimumGapMs ? state.onNews : nil
        }
        onNews?()
    }

    /// When something new was heard of the work.
    var lastNewsAtMs: Int { state.withLock { $0.lastNewsAtMs } }

    /// The work begins, or goes on in a way that has no event.
    func noteNews() { state.withLock { $0.lastNewsAtMs = nowMs() } }

    // MARK: The reporter's side

    /// The work has ended: the reporter comes to its end, without being cut off in the middle of a write.
    func close() {
        let onNews = state.withLock { state in
            defer { state.onNews = nil }
            return state.onNews
        }
        onNews?()
    }

    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Nothing was said that would have to be written, and no state was asked for.
    var isSilent: Bool { state.withLock { $0.tracker == nil && $0.lines.isEmpty && $0.droppedLines == 0 } }

    func current() -> ProgressState { state.withLock { withTracker(&$0) { $0.state(atMs: nowMs()) } } }

    /// `state` was written: from now on watchers draw its speed.
    func published(_ state: ProgressState) { self.state.withLock { $0.tracker?.published(state, atMs: nowMs()) } }

    /// The oldest phase or stage change that waits.
    var firstMilestone: ProgressState? { state.withLock { $0.milestones.first } }

    /// Drops what `firstMilestone` gave; it was written.
    func removeMilestone(_ written: ProgressState) {
        state.withLock { if $0.milestones.first == written { $0.milestones.removeFirst() } }
    }

    func sleepUntil(_ atMs: Int) { state.withLock { $0.wakeAtMs = atMs } }

    func takeLines(atMost count: Int) -> (lines: [LogLine], dropped: Int) {
        state.withLock { state in
            let lines = Array(state.lines.prefix(count))
            state.lines.removeFirst(lines.count)
            defer { state.droppedLines = 0 }
            return (lines, state.droppedLines)
        }
    }

    var hasLines: Bool { state.withLock { !$0.lines.isEmpty || $0.droppedLines > 0 } }

    func takePreview() -> String? {
        state.withLock { state in
            defer { state.preview = nil }
            return state.preview
        }
    }

    /// The end has come: what there is to learn from the job, should it turn out to be a good end; nil for nothing.
    ///
    /// - Parameter endedAtMs: when it came.
    func finish(atMs endedAtMs: Int) -> JobLesson? {
        state.withLock { state in
            if state.tracker == nil, !start.statistics.learnsFromSilence(ofMs: endedAtMs - startedAtMs) { return nil }
            return withTracker(&state) { tracker in
                let record = tracker.finish(atMs: endedAtMs)
                let lesson = JobLesson(record: record, trace: tracker.trace, plan: tracker.announced, hints: tracker.hints)
                // What said nothing has nothing to teach, and no trace.
                return record.isEmpty && !lesson.hasStages ? nil : lesson
            }
        }
    }

    func stageDurations() -> [(stage: String, ms: Int)] {
        state.withLock { $0.tracker?.stageDurations(atMs: nowMs()) ?? [] }.map { ($0.stage, $0.ms) }
    }
}
