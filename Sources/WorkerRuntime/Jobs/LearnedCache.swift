import ProgressCore
import Synchronization

/// What this worker knows of earlier jobs, for a few seconds and for all of its slots: short jobs do not read it one by one.
final class LearnedCache: Sendable {
    private struct Entry {
        var statistics: LearnedStatistics
        var readAtMs: Int
    }

    private struct State {
        var entries: [String: Entry] = [:]
        /// When a short job of a pipeline taught last.
        var taughtAtMs: [String: Int] = [:]

        func wants(_ pipeline: String, nowMs: Int) -> Bool {
            taughtAtMs[pipeline].map { nowMs - $0 >= WorkerLimits.shortJobMs } ?? true
        }
    }

    private let state = Mutex(State())

    /// Nil when it was not read; `isOld`: read it again, without letting a job wait for it.
    func statistics(of pipeline: String, nowMs: Int) -> (statistics: LearnedStatistics, isOld: Bool)? {
        state.withLock { state in
            guard let entry = state.entries[pipeline] else { return nil }
            let isOld = nowMs - entry.readAtMs >= WorkerLimits.learnedCacheMs
            // The one who is told reads it; others need not.
            if isOld { state.entries[pipeline]?.readAtMs = nowMs }
            return (entry.statistics, isOld)
        }
    }

    func note(_ statistics: LearnedStatistics, of pipeline: String, nowMs: Int) {
        state.withLock { state in
            // Names come from submitters; a forgotten one only costs a read.
            if state.entries.count >= WorkerLimits.learnedPipelines { state.entries.removeAll() }
            state.entries[pipeline] = Entry(statistics: statistics, readAtMs: nowMs)
        }
    }

    /// Something new was learned: the next job reads it.
    func forget(_ pipeline: String) { state.withLock { $0.entries[pipeline] = nil } }

    /// Whether a job may teach now: each one may that is long beside a lesson; of the others, of each pipeline, a few a second.
    func wantsLesson(of pipeline: String, durationMs: Int, nowMs: Int) -> Bool {
        durationMs >= WorkerLimits.shortJobMs || state.withLock { $0.wants(pipeline, nowMs: nowMs) }
    }

    /// The same for a job that has something to teach: true makes the next ones wait.
    func takesLesson(of pipeline: String, durationMs: Int, nowMs: Int) -> Bool {
        if durationMs >= WorkerLimits.shortJobMs { return true }
        return state.withLock { state in
            guard state.wants(pipeline, nowMs: nowMs) else { return false }
            if state.taughtAtMs.count >= WorkerLimits.learnedPipelines { state.taughtAtMs.removeAll() }
            state.taughtAtMs[pipeline] = nowMs
            return true
        }
    }
}
