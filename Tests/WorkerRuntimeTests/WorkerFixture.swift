import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Synchronization
import Telemetry
import TestSupport

@testable import WorkerRuntime

/// The store as a worker sees it through a bad network: each verb may fail before or after it ran, as a test says.
final class FlakyStore: WorkerStore {
    enum Fault {
        case before
        /// The verb runs, its reply is lost.
        case after
        /// The verb runs, its reply stays out until `letGo()`; it is lost when the task is cancelled.
        case held
    }

    let store: JobStore
    private let faults = Mutex<[String: [Fault]]>([:])
    private let isDown = Mutex(false)
    private let isHeld = Mutex(true)
    private let log = Mutex<[(verb: String, detail: String, at: ContinuousClock.Instant)]>([])

    init(_ store: JobStore) { self.store = store }

    var settings: StoreSettings { store.settings }

    /// The next calls of `verb` fail so.
    func fail(_ verb: String, _ list: [Fault]) { faults.withLock { $0[verb, default: []] += list } }
    /// Every call fails, as without Redis.
    func setDown(_ value: Bool) { isDown.withLock { $0 = value } }
    /// Replies that are held arrive.
    func letGo() { isHeld.withLock { $0 = false } }
    func calls(_ verb: String) -> [(detail: String, at: ContinuousClock.Instant)] {
        log.withLock { $0.filter { $0.verb == verb }.map { ($0.detail, $0.at) } }
    }

    private func through<R: Sendable>(
        _ verb: String,
        _ detail: String = "",
        _ body: () async throws(StoreError) -> R
    ) async throws(StoreError) -> R {
        log.withLock { $0.append((verb, detail, .now)) }
        if isDown.withLock({ $0 }) { throw StoreError(.unavailable, "down") }
        let fault = faults.withLock { faults -> Fault? in
            guard let first = faults[verb]?.first else { return nil }
            faults[verb]?.removeFirst()
            return first
        }
        if fault == .before { throw StoreError(.unavailable, "lost on the way there") }
        let result = try await body()
        if fault == .after { throw StoreError(.unavailable, "lost on the way back", mayHaveRun: true) }
        while fault == .held, isHeld.withLock({ $0 }) {
            do {
                try await Task.sleep(for: .milliseconds(5))
            } catch {
                throw StoreError(.unavailable, "cut off", mayHaveRun: true)
            }
        }
        return result
    }

    func claim(queue: String, worker: String, nonce: String, labels: [String]) async throws(StoreError) -> ClaimOutcome {
        try await through("claim", nonce) { () throws(StoreError) in
            try await store.claim(queue: queue, worker: worker, nonce: nonce, labels: labels)
        }
    }
    func waitForWork(queues: [String], labels: [String], atMost: Duration) async throws(StoreError) {
        try await through("wait") { () throws(StoreError) in try await store.waitForWork(queues: queues, labels: labels, atMost: atMost) }
    }
    func heartbeat(_ lease: Lease) async throws(StoreError) -> LeaseStatus {
        try await through("heartbeat") { () throws(StoreError) in try await store.heartbeat(lease) }
    }
    func advance(_ lease: Lease, write: Int, to state: ProgressState, quietMs: Int) async throws(StoreError) -> AdvanceOutcome {
        try await through("advance", "\(write)") { () throws(StoreError) in
            try await store.advance(lease, write: write, to: state, quietMs: quietMs)
        }
    }
    func appendLog(_ lease: Lease, write: Int?, _ lines: [LogLine], droppedBefore: Int) async throws(StoreError) -> LeaseStatus {
        try await through("log") { () throws(StoreError) in
            try await store.appendLog(lease, write: write, lines, droppedBefore: droppedBefore)
        }
    }
    func setPreview(_ lease: Lease, image: ByteBuffer, contentType: String) async throws(StoreError) -> LeaseStatus {
        try await through("preview") { () throws(StoreError) in
            try await store.setPreview(lease, image: image, contentType: contentType)
        }
    }
    func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)]
    ) async throws(StoreError) -> FinishStatus {
        try await through("finish") { () throws(StoreError) in
            try await store.finish(lease, as: end, resultJSON: resultJSON, stagesMs: stagesMs)
        }
    }
    func finish(
        _ lease: Lease,
        as end: FinishOutcome,
        resultJSON: String?,
        stagesMs: [(stage: String, ms: Int)],
        then request: ClaimRequest?
    ) async throws(StoreError) -> (status: FinishStatus, next: ClaimOutcome?) {
        try await through("finish", request?.nonce ?? "") { () throws(StoreError) in
            try await store.finish(lease, as: end, resultJSON: resultJSON, stagesMs: stagesMs, then: request)
        }
    }
    func fail(_ lease: Lease, error: JobError, stagesMs: [(stage: String, ms: Int)]) async throws(StoreError) -> FailStatus {
        try await through("fail") { () throws(StoreError) in try await store.fail(lease, error: error, stagesMs: stagesMs) }
    }
    func release(_ lease: Lease) async throws(StoreError) -> LeaseStatus {
        try await through("release") { () throws(StoreError) in try await store.release(lease) }
    }
    func statistics(pipeline: String) async throws(StoreError) -> LearnedStatistics {
        try await through("statistics", pipeline) { () throws(StoreError) in try await store.statistics(pipeline: pipeline) }
    }
    func learn(
        _ record: LearningRecord,
        pipeline: String,
        lease: Lease,
        traceJSON: String?
    ) async throws(StoreError) -> LearnOutcome {
        try await through("learn", pipeline) { () throws(StoreError) in
            try await store.learn(record, pipeline: pipeline, lease: lease, traceJSON: traceJSON)
        }
    }
    func reap(queue: String) async throws(StoreError) -> ReapReport {
        try await through("reap") { () throws(StoreError) in try await store.reap(queue: queue) }
    }
    func registerWorker(_ record: WorkerRecord) async throws(StoreError) -> WorkerOrders {
        try await through("register") { () throws(StoreError) in try await store.registerWorker(record) }
    }
    func removeWorker(_ id: String, instance: String) async throws(StoreError) {
        try await through("remove") { () throws(StoreError) in try await store.removeWorker(id, instance: instance) }
    }
}

/// A real Redis, a store on it, and a worker that runs shell scripts or a test's own backend.
struct WorkerFixture: Sendable {
    let server: RedisServer
    let store: JobStore
    let flaky: FlakyStore
    let worker: Worker
    let root: String

    static let pipeline = Pipeline(
        name: "relief",
        stages: [
            .init(name: "image_loading", phase: .analyzing, weight: 0.1, expectedMs: 100),
            .init(name: "shape_generation", phase: .generating, weight: 0.8, expectedMs: 1000),
            .init(name: "mesh_export", phase: .postProcessing, weight: 0.1, expectedMs: 100),
        ]
    )

    /// Runs `body` beside a worker whose command is `sh -c script`, or that has the given backend; the worker is drained afterwards.
    static func with(
        script: String = "",
        backend: (any GeneratorBackend)? = nil,
        redis options: RedisServer.Options = .init(),
        grace: Duration = .seconds(2),
        gatewayURL: String? = nil,
        settings: StoreSettings? = nil,
        hints: Bool = false,
        concurrency: Int = 1,
        updatesPerSecond: Double = 4,
        shutdownGrace: Duration = .seconds(20),
        change: @Sendable (inout WorkerConfiguration) -> Void = { _ in },
        _ body: (WorkerFixture) async throws -> Void
    ) async throws {
        let server = try await RedisServer.start(options)
        let group = MultiThreadedEventLoopGroup.singleton
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let client = RedisClient(configuration: server.configuration(), eventLoopGroup: group, logger: logger)
        var quick = StoreSettings()
        quick.heartbeat = .milliseconds(200)
        quick.lease = .seconds(2)
        quick.reapInterval = .zero
        let store = JobStore(redis: client, keys: Keys(), settings: settings ?? quick)
        let flaky = FlakyStore(store)
        try await withTemporaryDirectory { root in
            var configuration = WorkerConfiguration(
                name: "w1",
                queues: ["gpu"],
                concurrency: concurrency,
                gatewayURL: gatewayURL,
                workDirectory: root + "/work",
                updatesPerSecond: updatesPerSecond,
                shutdownGrace: shutdownGrace
            )
            change(&configuration)
            let worker = Worker(
                configuration: configuration,
                store: flaky,
                hints: hints ? (server.configuration(), store.keys.workerHints("w1")) : nil,
                pipelines: [pipeline],
                backend: backend ?? SubprocessBackend(command: ["sh", "-c", script], grace: grace),
                registry: MetricsRegistry(),
                group: group,
                eventLoop: client.eventLoop,
                logger: logger
            )
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { try await client.run() }
                try await eventually("the store is ready") { (try? await store.prepare()) != nil }
                let running = Task { try await worker.run() }  // ended below by draining it, as a service is
                do {
                    try await body(WorkerFixture(server: server, store: store, flaky: flaky, worker: worker, root: root))
                } catch {
                    running.cancel()
                    _ = await running.result
                    tasks.cancelAll()
                    throw error
                }
                worker.enter(.stopping)
                try await running.value
                tasks.cancelAll()
            }
        }
    }

    func submit(_ id: String, params: String = "{}", change: (inout JobSubmission) -> Void = { _ in }) async throws -> JobID {
        let job = JobID(id)!
        var submission = JobSubmission(id: job, queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: params)
        change(&submission)
        _ = try await store.submit(submission)
        return job
    }

    func snapshot(_ job: JobID) async throws -> JobSnapshot {
        guard let snapshot = try await store.snapshot(job) else { throw TestSupportError(.timedOut, "\(job) is absent") }
        return snapshot
    }

    @discardableResult
    func end(of job: JobID, within limit: Duration = .seconds(20)) async throws -> JobSnapshot {
        try await eventually(within: limit, "the end of \(job)") {
            let snapshot = try? await snapshot(job)
            return snapshot?.phase.isTerminal == true ? snapshot : nil
        }
    }

    func reaches(_ job: JobID, _ what: String, _ condition: (JobSnapshot) -> Bool) async throws {
        try await eventually(within: .seconds(20), what) { condition(try await snapshot(job)) }
    }
}
