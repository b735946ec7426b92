public import NIOCore
public import ProgressCore

public struct StoreSettings: Sendable {
    public var lease: Duration = .seconds(20)
    public var heartbeat: Duration = .seconds(5)
    public var cancelGrace: Duration = .seconds(10)
    public var defaultMaxAttempts = 3
    public var defaultTTL: Duration = .seconds(3600)
    /// `SPUBLISH` instead of `PUBLISH` (Redis ≥ 7, Cluster).
    public var useShardedPublish = false
    /// Two runs of `reap` on one queue are at least this far apart, whoever runs them.
    public var reapInterval: Duration = .milliseconds(500)
    /// A worker writes its record at least so often; the record lives for three times this.
    public var registration: Duration = .seconds(20)
    /// 64 random bits, for the jitter of retries and for fences; tests give their own.
    public var random: @Sendable () -> UInt64 = { PooledRandom().next() }
    public init() {}
}

public struct StoreError: Error, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// Redis unreachable, loading, timed out, full, read-only: try again later (HTTP 503).
        case unavailable
        /// Wrong password, wrong version, other schema: an operator must change something.
        case incompatible
        /// A value breaks a limit or a rule (HTTP 400/413/422).
        case invalid
        /// The id is taken by another job or owner (HTTP 409).
        case conflict
        /// The job behind an idempotency key has expired (HTTP 410).
        case gone
        /// The queue holds as many jobs as it may (HTTP 429).
        case full
        /// The queue takes no new jobs while it is drained (HTTP 503).
        case draining
        /// The group a child names does not exist (HTTP 404).
        case unknownGroup
        /// No such job (HTTP 404).
        case unknownJob
        /// No such queue (HTTP 404).
        case unknownQueue
        /// A script answered something it never should.
        case corrupt
    }
    public var code: Code
    public var message: String
    /// For `.unavailable`: the change may nevertheless have happened; repeating with the same nonce/id/write number is safe.
    public var mayHaveRun: Bool
    public init(_ code: Code, _ message: String, mayHaveRun: Bool = false) {
        self.code = code
        self.message = message
        self.mayHaveRun = mayHaveRun
    }
    public var description: String { "\(code.rawValue): \(message)" }
}

public struct StoreWarning: Sendable, CustomStringConvertible {
    public let description: String
}

/// Who submitted: `tenant/user` or `anonymous`.
public struct Owner: Sendable, Hashable, CustomStringConvertible {
    public let text: String
    public init(_ text: String) { self.text = text }
    public static let anonymous = Owner("anonymous")
    public var description: String { text }

    /// What fairness and limits go by: the text up to the first `/`.
    public var tenant: String { String(text.prefix { $0 != "/" }) }
}

public struct JobSubmission: Sendable {
    public var id: JobID
    public var queue: String
    public var pipeline: String
    public var owner: Owner
    /// A JSON object as text, at most 256 KiB, already validated.
    public var paramsJSON: String
    public var priority: Int = 5
    public var delayMs: Int = 0
    /// Unix ms after which a job that has not started ends FAILED `expired`; nil = 24 h from now.
    public var expiresAtMs: Int?
    public var maxAttempts: Int?
    public var maxRuntimeMs: Int?
    public var ttlMs: Int?
    public var jobClass: String?
    public var isCold: Bool?
    public var planJSON: String?
    public var traceparent: String?
    public var retryOf: JobID?
    /// Label of workers that should run it, e.g. one that has the model loaded: a wish, bounded in time.
    public var prefer: String?
    /// The job is a group of this many children and no work of its own.
    public var children: Int?
    /// The job is the next child of this group; `id` is not looked at.
    public var childOf: JobID?
    /// The id was derived from an idempotency key: it is remembered for 24 h.
    public var isIdempotent = false
    public init(id: JobID, queue: String, pipeline: String, owner: Owner, paramsJSON: String) {
        self.id = id
        self.queue = queue
        self.pipeline = pipeline
        self.owner = owner
        self.paramsJSON = paramsJSON
    }
}

public struct SubmitOutcome: Sendable {
    public let isNew: Bool
    public let head: JobHead
}

public struct JobHead: Sendable {
    public let job: JobID
    public let seq: Int
    public let phase: Phase
    public let owner: Owner
    /// The last event's JSON, bytes as Redis holds them.
    public let body: ByteBuffer
}

public struct Milestone: Sendable {
    public let seq: Int
    public let phase: Phase
    public let body: ByteBuffer
}

public enum CancelOutcome: Sendable, Equatable {
    case absent
    case alreadyEnded(Phase)
    /// It was waiting and is CANCELLED now.
    case cancelled
    /// It runs; its worker was told (true) or had been told before (false).
    case requested(first: Bool)
}

/// Proof of one claim; every write under it names it.
public struct Lease: Sendable, Hashable {
    public let job: JobID
    public let queue: String
    public let fence: String
    public let worker: String
    /// Of the claim; empty when there was none. With the end of the job Redis forgets it.
    public let nonce: String

    public init(job: JobID, queue: String, fence: String, worker: String, nonce: String = "") {
        self.job = job
        self.queue = queue
        self.fence = fence
        self.worker = worker
        self.nonce = nonce
    }
}

public struct Claim: Sendable {
    public let lease: Lease
    public let attempt: Int
    public let maxAttempts: Int
    public let pipeline: String
    public let owner: Owner
    public let paramsJSON: String
    public let jobClass: String?
    public let isCold: Bool?
    public let planJSON: String?
    public let maxRuntimeMs: Int?
    public let traceparent: String?
    public let prefer: String?
    public let createdAtMs: Int
    /// Nothing is left in the line, nor delayed; what comes later wakes who waits.
    public let isLast: Bool
}

/// A wish for the next job, sent along with the end of the last.
public struct ClaimRequest: Sendable, Hashable {
    public var queue: String
    public var worker: String
    /// Random text of this attempt to claim: the same one returns the same claim. No spaces, at most 128 bytes. Along with an end none is
    /// needed: the ended job remembers.
    public var nonce: String
    /// Jobs that prefer one of them come first.
    public var labels: [String]

    public init(queue: String, worker: String, nonce: String = "", labels: [String] = []) {
        self.queue = queue
        self.worker = worker
        self.nonce = nonce
        self.labels = labels
    }
}

public enum ClaimOutcome: Sendable {
    case job(Claim)
    /// Nothing to do; the next delayed job or lease expiry is due in so many ms (nil: none).
    case empty(nextDueMs: Int?)
    case paused
}

public struct CancelRequest: Sendable, Hashable {
    public let by: String
    public let reason: String?

    public init(by: String, reason: String?) {
        self.by = by
        self.reason = reason
    }
}

/// What Redis says of a lease after a write under it.
public enum LeaseStatus: Sendable, Equatable {
    case held
    case cancelRequested(CancelRequest)
    /// Another fence, absent or terminal: stop the work, write nothing more.
    case lost
}

public enum AdvanceOutcome: Sendable, Equatable {
    /// Applied (or applied before, when the write number is repeated).
    case accepted(seq: Int, wasClamped: Bool, cancel: CancelRequest?)
    case lost
}

public enum FinishOutcome: Sendable, Equatable {
    case complete
    case cancelled
}

public enum FinishStatus: Sendable, Equatable {
    case done
    case lost
}

public enum FailStatus: Sendable, Equatable {
    /// Goes back to QUEUED as `attempt`, due in `delayMs`.
    case willRetry(attempt: Int, delayMs: Int)
    /// FAILED for good.
    case dead
    case lost
}

public struct JobError: Sendable, Hashable {
    /// snake_case, e.g. `generator_failed`, `worker_lost`, `timeout`.
    public var code: String
    public var message: String
    /// False: no retry helps.
    public var isRecoverable: Bool
    public init(code: String, message: String, isRecoverable: Bool) {
        self.code = code
        self.message = message
        self.isRecoverable = isRecoverable
    }
}

public struct LogLine: Sendable, Hashable {
    public var atMs: Int
    public var stream: String
    public var text: String
    public init(atMs: Int = 0, stream: String, text: String) {
        self.atMs = atMs
        self.stream = stream
        self.text = text
    }
}

public struct ReapReport: Sendable, Equatable {
    public var skipped = false
    public var requeued = 0
    public var ended = 0
    public init() {}
}

/// Everything the job's hash says.
public struct JobSnapshot: Sendable {
    public let job: JobID
    /// Field name → text, as in docs/redis.md.
    public let fields: [String: String]
    public var seq: Int { Int(fields["seq"] ?? "") ?? 0 }
    public var phase: Phase { Phase(rawValue: fields["phase"] ?? "") ?? .queued }
    public var owner: Owner { Owner(fields["owner"] ?? "anonymous") }
    public var body: String { fields["body"] ?? "{}" }
    public init(job: JobID, fields: [String: String]) {
        self.job = job
        self.fields = fields
    }
}
