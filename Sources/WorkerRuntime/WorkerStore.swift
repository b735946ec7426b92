public import JobStore
public import NIOCore
public import ProgressCore

/// The verbs by which a running job's progress is written.
public protocol ProgressStore: Sendable {
    func heartbeat(_ lease: Lease) async throws(StoreError) -> LeaseStatus
    func advance(_ lease: Lease, write: Int, to state: ProgressState, quietMs: Int) async throws(StoreError) -> AdvanceOutcome
    func appendLog(_ lease: Lease, write: Int?, _ lines: [LogLine], droppedBefore: Int) async throws(StoreError) -> LeaseStatus
    func setPreview(_ lease: Lease, image: ByteBuffer, contentType: String) async throws(StoreError) -> LeaseStatus
    func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)]
    ) async throws(StoreError) -> FinishStatus
    func fail(_ lease: Lease, error: JobError, stagesMs: [(stage: String, ms: Int)]) async throws(StoreError) -> FailStatus
}

/// The verbs of the job store that a worker uses; a test can put something between.
protocol WorkerStore: ProgressStore {
    var settings: StoreSettings { get }

    func claim(queue: String, worker: String, nonce: String, labels: [String]) async throws(StoreError) -> ClaimOutcome
    func waitForWork(queues: [String], labels: [String], atMost: Duration) async throws(StoreError)
    func release(_ lease: Lease) async throws(StoreError) -> LeaseStatus
    func statistics(pipeline: String) async throws(StoreError) -> LearnedStatistics
    func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)],
        then request: ClaimRequest?
    ) async throws(StoreError) -> (status: FinishStatus, next: ClaimOutcome?)
    func learn(
        _ record: LearningRecord,
        pipeline: String,
        lease: Lease,
        traceJSON: String?
    ) async throws(StoreError) -> LearnOutcome
    func reap(queue: String) async throws(StoreError) -> ReapReport
    func registerWorker(_ record: WorkerRecord) async throws(StoreError) -> WorkerOrders
    func removeWorker(_ id: String, instance: String) async throws(StoreError)
}

extension JobStore: WorkerStore {}
