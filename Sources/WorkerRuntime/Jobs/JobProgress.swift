import JobStore
import ProgressCore
import Synchronization

/// What is known of a running job and not yet written: the meeting place of the backend, on whatever thread it calls, and the
/// reporter. Bounded: the newest state, a few phase and stage changes, some log lines, one preview.
final class JobProgress: Sendable {
    private struct State {
        var tracker: ProgressTracker
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
        var isClosed = false
    }

    private let state: Mutex<State>
    private let bell: Doorbell
    private let nowMs: @Sendable () -> Int
    private let minimumGapMs: Int

    init(
        pipeline: Pipeline,
        plan: [PlannedStage],
        statistics: LearnedStatistics = LearnedStatistics(),
        hints: JobHints = JobHints(),
        policy: ReportPolicy,
        bell: Doorbell,
        nowMs: @escaping @Sendable () -> Int
    ) {
        let tracker = ProgressTracker(pipeline: pipeline, plan: plan, statistics: statistics, hints: hints, startedAtMs: nowMs())
        state = Mutex(State(tracker: tracker, lastNewsAtMs: nowMs()))
        self.bell = bell
        self.nowMs = nowMs
        minimumGapMs = policy.minimumGapMs
    }

    /// Takes in one event of the backend; never blocks for long.
    func receive(_ event: BackendEvent) {
        let now = nowMs()
        let shouldRing = state.withLock { state -> Bool in
            switch event {
            case .progress(let update):
                // A generator that repeats itself makes no progress.
                if update != state.lastUpdate { state.lastNewsAtMs = now }
                state.lastUpdate = update
                if state.tracker.apply(update, atMs: now) {
                    if state.milestones.count == WorkerLimits.pendingMilestones { state.milestones.removeFirst() }
                    state.milestones.append(state.tracker.state(atMs: now))
                    return true
                }
            case .plan(let plan): state.tracker.adopt(plan)
            case .hints(let jobClass, let isCold): state.tracker.adopt(jobClass: jobClass, isCold: isCold)
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
            return state.wakeAtMs > now + minimumGapMs
        }
        if shouldRing { bell.ring() }
    }

    /// When something new was heard of the work.
    var lastNewsAtMs: Int { state.withLock { $0.lastNewsAtMs } }

    /// The work begins, or goes on in a way that has no event.
    func noteNews() { state.withLock { $0.lastNewsAtMs = nowMs() } }

    // MARK: The reporter's side

    /// The work has ended: the reporter comes to its end, without being cut off in the middle of a write.
    func close() {
        state.withLock { $0.isClosed = true }
        bell.ring()
    }

    var isClosed: Bool { state.withLock { $0.isClosed } }

    func current() -> ProgressState { state.withLock { $0.tracker.state(atMs: nowMs()) } }

    /// `state` was written: from now on watchers draw its speed.
    func published(_ state: ProgressState) { self.state.withLock { $0.tracker.published(state, atMs: nowMs()) } }

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

    /// The end has come: what there is to learn from the job, should it turn out to be a good end.
    func finish() -> JobLesson {
        state.withLock { state in
            let record = state.tracker.finish(atMs: nowMs())
            return JobLesson(record: record, trace: state.tracker.trace, plan: state.tracker.announced, hints: state.tracker.hints)
        }
    }

    func stageDurations() -> [(stage: String, ms: Int)] {
        state.withLock { $0.tracker.stageDurations(atMs: nowMs()) }.map { ($0.stage, $0.ms) }
    }
}
