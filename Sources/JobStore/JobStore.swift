public import NIOCore
public import ProgressCore
public import RedisLink

/// The job queue and the progress of its jobs, in Redis: every change is one Lua script.
public struct JobStore: Sendable {
    public let redis: RedisClient
    public let keys: Keys
    public let settings: StoreSettings

    public init(redis: RedisClient, keys: Keys, settings: StoreSettings = .init()) {
        self.redis = redis
        self.keys = keys
        self.settings = settings
    }

    /// Checks server version and settings, creates or verifies `headway:meta` (schema version, partition count).
    /// Throws `.incompatible` with what to change.
    public func prepare() async throws(StoreError) -> [StoreWarning] { fatalError() }

    // MARK: Submitters
    public func submit(_ job: JobSubmission) async throws(StoreError) -> SubmitOutcome { fatalError() }
    public func cancel(_ job: JobID, by: String, reason: String?) async throws(StoreError) -> CancelOutcome { fatalError() }

    // MARK: Workers
    public func claim(queue: String, worker: String, nonce: String) async throws(StoreError) -> ClaimOutcome { fatalError() }
    /// Blocks until one of the queues may have work, at most `atMost`.
    public func waitForWork(queues: [String], atMost: Duration) async throws(StoreError) { fatalError() }
    public func heartbeat(_ lease: Lease) async throws(StoreError) -> LeaseStatus { fatalError() }
    public func advance(_ lease: Lease, write: Int, to state: ProgressState) async throws(StoreError) -> AdvanceOutcome { fatalError() }
    public func appendLog(_ lease: Lease, _ lines: [LogLine], droppedBefore: Int) async throws(StoreError) -> LeaseStatus { fatalError() }
    public func setPreview(_ lease: Lease, image: ByteBuffer, contentType: String) async throws(StoreError) -> LeaseStatus { fatalError() }
    /// COMPLETE, or CANCELLED when the worker acknowledges a cancel. `resultJSON` is a JSON object. Repeating it is harmless.
    public func finish(_ lease: Lease, as end: FinishOutcome, resultJSON: String?, stagesMs: [(stage: String, ms: Int)]) async throws(StoreError) -> FinishStatus { fatalError() }
    public func fail(_ lease: Lease, error: JobError, stagesMs: [(stage: String, ms: Int)]) async throws(StoreError) -> FailStatus { fatalError() }
    public func release(_ lease: Lease) async throws(StoreError) -> LeaseStatus { fatalError() }

    // MARK: Any live process
    /// Ends what ran out of time, hands on what lost its worker; a cheap no-op when another process did it just now.
    public func reap(queue: String) async throws(StoreError) -> ReapReport { fatalError() }

    // MARK: Readers
    /// The whole hash as the dashboards see it, or nil.
    public func snapshot(_ job: JobID) async throws(StoreError) -> JobSnapshot? { fatalError() }
    /// seq, phase, owner and body of many jobs in one pipelined read; nil for absent ones.
    public func heads(_ jobs: [JobID]) async throws(StoreError) -> [JobHead?] { fatalError() }
    /// Only `seq` of many jobs (0 = absent): what the reconciler reads first.
    public func sequences(_ jobs: [JobID]) async throws(StoreError) -> [Int] { fatalError() }
    /// Milestone bodies with seq > `after`, oldest first, as (seq, body).
    public func milestones(_ job: JobID, after: Int) async throws(StoreError) -> [Milestone] { fatalError() }
    public func logs(_ job: JobID, limit: Int) async throws(StoreError) -> [LogLine] { fatalError() }
    public func preview(_ job: JobID) async throws(StoreError) -> (image: ByteBuffer, contentType: String)? { fatalError() }
    /// 0 = next. nil when the job is not waiting in `queue`'s ready set.
    public func position(_ job: JobID, queue: String) async throws(StoreError) -> Int? { fatalError() }
    public func queues() async throws(StoreError) -> [QueueStatus] { fatalError() }
    public func queueNames() async throws(StoreError) -> Set<String> { fatalError() }
    public func workers() async throws(StoreError) -> [WorkerRecord] { fatalError() }

    // MARK: Registry
    public func registerQueues(_ names: [String]) async throws(StoreError) { fatalError() }
    /// Writes the worker's record with a TTL of three refresh intervals.
    public func registerWorker(_ record: WorkerRecord) async throws(StoreError) { fatalError() }
    public func removeWorker(_ id: String) async throws(StoreError) { fatalError() }
}
