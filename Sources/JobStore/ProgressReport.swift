public import ProgressCore

/// What a producer says of its job: only what changed. Nil stays as it was, except what a change of phase or stage makes untrue
/// (stage, steps, items, message) and except speed and ETA, which are of the moment and go unless they are named again.
public struct ProgressReport: Sendable, Equatable {
    /// Not before the job's phase, not terminal.
    public var phase: Phase?
    /// 0…100 of the whole job and of the phase; held at the last value when lower.
    public var percent: Double?
    public var phasePercent: Double?
    public var percentPerSecond: Double?
    /// An empty text clears.
    public var stage: String?
    public var stagePercent: Double?
    public var step: Int?
    public var steps: Int?
    public var item: Int?
    public var items: Int?
    /// An empty text clears.
    public var message: String?
    public var etaMs: Int?
    public var etaLowMs: Int?
    public var etaHighMs: Int?
    public var isStalled = false
    /// For how long the work has said nothing new. Nil: since now, when this report says anything else than the one before.
    public var quietMs: Int?

    public init() {}
}

/// A job without queue and worker, as its producer opens it.
public struct ProducerSubmission: Sendable {
    public var id: JobID
    public var pipeline: String
    public var owner: Owner
    /// Random text of this attempt to open; repeating the call with it returns the same token. 1–128 bytes.
    public var nonce: String
    /// Who reports, for people: at most 128 bytes.
    public var producer: String
    public var paramsJSON = "{}"
    public var maxRuntimeMs: Int?
    public var ttlMs: Int?
    public var jobClass: String?
    public var traceparent: String?

    public init(id: JobID, pipeline: String, owner: Owner, nonce: String, producer: String) {
        self.id = id
        self.pipeline = pipeline
        self.owner = owner
        self.nonce = nonce
        self.producer = producer
    }
}

public struct OpenOutcome: Sendable, Hashable {
    /// False: the same nonce opened it before.
    public let isNew: Bool
    public let lease: Lease
    /// Number of the job's last change.
    public let seq: Int
}
