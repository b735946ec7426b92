public import ProgressCore

/// Why a job is where it is, as of one moment: what `GET /v1/jobs/J/why` and `headway why` say.
public struct JobDiagnosis: Sendable, Hashable {
    public let job: JobID
    public let owner: Owner
    public let phase: Phase
    /// The queue it waits or runs in; nil for progress-only jobs and groups.
    public let queue: String?
    /// The attempt that runs or comes next, and how many there may be.
    public let attempt: Int
    public let maxAttempts: Int
    /// When this was read, Unix ms of Redis's clock.
    public let atMs: Int
    /// The most decisive first; never empty.
    public let reasons: [Reason]
    /// How earlier attempts, or the last one, failed; as far as the milestones are kept, oldest first.
    public let failures: [AttemptFailure]

    /// An attempt that failed.
    public struct AttemptFailure: Sendable, Hashable {
        public let attempt: Int
        public let atMs: Int
        public let code: String
        public let message: String
    }

    /// A child of a group that has not ended.
    public struct OpenChild: Sendable, Hashable {
        public let job: JobID
        public let phase: Phase
    }

    /// How many children of a group are in which state.
    public struct GroupCounts: Sendable, Hashable {
        public let expected: Int
        public let made: Int
        public let waiting: Int
        public let running: Int
        public let complete: Int
        public let failed: Int
        public let cancelled: Int
    }

    /// One finding; times are spans in ms from `atMs`.
    public enum Reason: Sendable, Hashable {
        // It has ended.
        case complete(agoMs: Int)
        case failed(agoMs: Int, code: String, message: String)
        case cancelled(agoMs: Int, by: String?, reason: String?, wasForced: Bool)
        case retriedAs(JobID)

        // It waits.
        case queuePaused(queue: String)
        case noWorker(queue: String)
        /// Every worker of the queue is shutting down.
        case workersDraining(queue: String, workers: Int)
        case queueLimit(queue: String, running: Int, limit: Int)
        /// Its tenant runs as many jobs as it may; `ahead` of the tenant's own parked ones come first, nil while it still stands in
        /// the line itself.
        case tenantLimit(tenant: String, running: Int, limit: Int, ahead: Int?)
        /// It stands among its tenant's parked jobs though the limit would let it in: the next sweep does.
        case parked(tenant: String, ahead: Int)
        case delayed(dueInMs: Int)
        case retryDelayed(attempt: Int, dueInMs: Int, code: String?, message: String?)
        case inLine(queue: String, ahead: Int, ready: Int)
        case workersBusy(queue: String, workers: Int, slots: Int)
        /// A worker has a free place: it is about to take a job.
        case workersFree(queue: String, workers: Int, slots: Int, busy: Int)
        /// It waits and is in no place; `reap` or `headway audit --fix` puts it back.
        case misplaced
        case queueDraining(queue: String)
        case expires(inMs: Int)

        // It runs.
        case cancelRequested(by: String, reason: String?, sinceMs: Int)
        case leaseExpired(worker: String, sinceMs: Int)
        /// Its worker's record is gone: the lease decides.
        case workerGone(worker: String, leaseLeftMs: Int)
        case stalled(progressAgeMs: Int)
        case running(worker: String, sinceMs: Int, leaseLeftMs: Int, progressAgeMs: Int)
        case reporting(producer: String, sinceMs: Int, leaseLeftMs: Int, progressAgeMs: Int)
        case runtimeLimit(leftMs: Int)
        case group(GroupCounts, open: [OpenChild], isCut: Bool)
    }
}

extension JobDiagnosis.Reason {
    /// Stable, snake_case; what programs go by.
    public var code: String {
        switch self {
        case .complete: "complete"
        case .failed: "failed"
        case .cancelled: "cancelled"
        case .retriedAs: "retried_as"
        case .queuePaused: "queue_paused"
        case .noWorker: "no_worker"
        case .workersDraining: "workers_draining"
        case .queueLimit: "queue_limit"
        case .tenantLimit: "tenant_limit"
        case .parked: "parked"
        case .delayed: "delayed"
        case .retryDelayed: "retry_delayed"
        case .inLine: "in_line"
        case .workersBusy: "workers_busy"
        case .workersFree: "workers_free"
        case .misplaced: "misplaced"
        case .queueDraining: "queue_draining"
        case .expires: "expires"
        case .cancelRequested: "cancel_requested"
        case .leaseExpired: "lease_expired"
        case .workerGone: "worker_gone"
        case .stalled: "stalled"
        case .running: "running"
        case .reporting: "reporting"
        case .runtimeLimit: "runtime_limit"
        case .group: "group"
        }
    }

    /// A sentence for people.
    public var message: String {
        switch self {
        case .complete, .failed, .cancelled, .retriedAs: endMessage
        case .queuePaused, .noWorker, .workersDraining, .queueLimit, .workersBusy, .workersFree, .queueDraining: queueMessage
        case .tenantLimit, .parked, .delayed, .retryDelayed, .inLine, .misplaced, .expires: placeMessage
        case .cancelRequested, .leaseExpired, .workerGone, .stalled, .running, .reporting, .runtimeLimit: runMessage
        case .group(let counts, let open, let isCut):
            groupMessage(counts, open, isCut)
        }
    }

    private var endMessage: String {
        switch self {
        case .complete(let ago): "it completed \(span(ago)) ago"
        case .failed(let ago, let code, let message): "it failed \(span(ago)) ago: \(message) (\(code))"
        case .cancelled(let ago, let by, let reason, let wasForced):
            "it was cancelled \(span(ago)) ago" + (by.map { " by \($0)" } ?? "") + (reason.map { ": \($0)" } ?? "")
                + (wasForced ? " (its worker did not acknowledge it in time)" : "")
        case .retriedAs(let job): "it was tried again as \(job)"
        default: ""
        }
    }

    private var queueMessage: String {
        switch self {
        case .queuePaused(let queue): "the queue \(queue) is paused: nothing is given to workers until `headway resume \(queue)`"
        case .noWorker(let queue): "no worker is alive that serves the queue \(queue)"
        case .workersDraining(let queue, let workers):
            "\(count(workers, "worker")) of the queue \(queue) \(workers == 1 ? "is" : "are") shutting down, and no other serves it"
        case .queueLimit(let queue, let running, let limit):
            "the queue \(queue) runs \(running) of at most \(limit) jobs (max_running)"
        case .workersBusy(let queue, let workers, let slots):
            "\(count(workers, "worker")) of the queue \(queue), \(count(slots, "place")), all taken"
        case .workersFree(let queue, let workers, let slots, let busy):
            "\(count(workers, "worker")) of the queue \(queue), \(slots - busy) of \(count(slots, "place")) free"
        case .queueDraining(let queue): "the queue \(queue) is drained: it takes no new jobs, this one still runs"
        default: ""
        }
    }

    private var placeMessage: String {
        switch self {
        case .tenantLimit(let tenant, let running, let limit, let ahead):
            "the tenant \(tenant) runs \(running) of at most \(count(limit, "job")) here"
                + (ahead.map { "; \($0) of its own \($0 == 1 ? "comes" : "come") first" } ?? "")
        case .parked(let tenant, let ahead):
            "it stands outside the line with other jobs of the tenant \(tenant), \(ahead) of them before it; the next sweep lets it in"
        case .delayed(let due): due > 0 ? "it is not due for another \(span(due))" : "it is due: the next claim or sweep lets it in"
        case .retryDelayed(let attempt, let due, let code, let message):
            (due > 0 ? "attempt \(attempt) starts in \(span(due))" : "attempt \(attempt) is due")
                + (message.map { "; the last one failed: \($0)" } ?? "") + (code.map { " (\($0))" } ?? "")
        case .inLine(let queue, let ahead, _):
            ahead == 0
                ? "it is the next in the queue \(queue)"
                : "\(count(ahead, "job")) \(ahead == 1 ? "is" : "are") ahead of it in the queue \(queue)"
        case .misplaced: "it waits, yet stands in no line; a sweep puts it back within an hour, `headway audit --fix` at once"
        case .expires(let left):
            left > 0 ? "it ends as expired in \(span(left)) if no worker starts it" : "it has expired: the next sweep ends it"
        default: ""
        }
    }

    private var runMessage: String {
        switch self {
        case .cancelRequested(let by, let reason, let since):
            "\(by) asked for its cancellation \(span(since)) ago" + (reason.map { " (\($0))" } ?? "") + ", not yet acknowledged"
        case .leaseExpired(let worker, let since):
            "\(worker) has been silent for too long: its lease ran out \(span(since)) ago, the next sweep hands the job on"
        case .workerGone(let worker, let left):
            "the worker \(worker) is not registered any more; the job is handed on in \(span(left)) unless it answers"
        case .stalled(let age): "no progress for \(span(age)), longer than usual at this stage"
        case .running(let worker, let since, let left, let age):
            "\(worker) has run it for \(span(since)); last progress \(span(age)) ago, lease good for \(span(left))"
        case .reporting(let producer, let since, let left, let age):
            "\(producer) has reported it for \(span(since)); last progress \(span(age)) ago, lease good for \(span(left))"
        case .runtimeLimit(let left):
            left > 0 ? "it may run for another \(span(left)) (max_runtime_ms)" : "it has run longer than max_runtime_ms"
        default: ""
        }
    }

    private func groupMessage(_ counts: JobDiagnosis.GroupCounts, _ open: [JobDiagnosis.OpenChild], _ isCut: Bool) -> String {
        let ended = counts.complete + counts.failed + counts.cancelled
        var text = "\(ended) of \(counts.expected) children have ended (\(counts.failed) failed, \(counts.cancelled) cancelled)"
        if counts.made < counts.expected { text += ", \(counts.expected - counts.made) are not submitted yet" }
        if !open.isEmpty {
            text += "; open: " + open.map { "\($0.job) \($0.phase.rawValue)" }.joined(separator: ", ") + (isCut ? ", …" : "")
        }
        return text
    }

    private func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }

    /// Two units at most: `3 h 20 min`.
    private func span(_ ms: Int) -> String {
        let ms = max(0, ms)
        let seconds = ms / 1000
        return switch seconds {
        case ..<1: "\(ms) ms"
        case ..<120: "\(seconds) s"
        case ..<7200: "\(seconds / 60) min"
        case ..<172_800: "\(seconds / 3600) h \(seconds % 3600 / 60) min"
        default: "\(seconds / 86_400) days"
        }
    }
}
