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

/// A real Redis, and as many workers on it as a test starts, each with what a test gives it.
final class WorkerFleet: Sendable {
    /// One worker and its run.
    struct Member: Sendable {
        let worker: Worker
        let store: FlakyStore
        let metrics: MetricsRegistry
        let run: Task<Void, any Error>
        let hasEnded: @Sendable () -> Bool
    }

    let server: RedisServer
    let store: JobStore
    let root: String
    private let members = Mutex<[Member]>([])

    private init(server: RedisServer, store: JobStore, root: String) {
        self.server = server
        self.store = store
        self.root = root
    }

    /// Short times, for tests that are not about them.
    static var quick: StoreSettings {
        var settings = StoreSettings()
        settings.heartbeat = .milliseconds(200)
        settings.lease = .seconds(4)
        settings.reapInterval = .zero
        return settings
    }

    static func with(settings: StoreSettings = quick, _ body: (WorkerFleet) async throws -> Void) async throws {
        let server = try await RedisServer.start()
        let client = RedisClient(configuration: server.configuration(), eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: quiet)
        let store = JobStore(redis: client, keys: Keys(), settings: settings)
        let link = Task { try await client.run() }  // ended below: a client lives as long as its test
        do {
            try await withTemporaryDirectory { root in
                let fleet = WorkerFleet(server: server, store: store, root: root)
                try await eventually(within: .seconds(30), "the store is ready") { (try? await store.prepare()) != nil }
                do {
                    try await body(fleet)
                } catch {
                    await fleet.stop()
                    throw error
                }
                await fleet.stop()
            }
        } catch {
            link.cancel()
            _ = await link.result
            throw error
        }
        link.cancel()
        _ = await link.result
    }

    static var quiet: Logger { Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }) }

    /// Starts a worker; `script` is run by `sh`, `command` instead of it.
    @discardableResult
    func start(
        _ name: String,
        script: String = "true",
        command: [String]? = nil,
        hints: Bool = true,
        environment: WorkerEnvironment = WorkerEnvironment(),
        change: (inout WorkerConfiguration) -> Void = { _ in }
    ) -> Member {
        var configuration = WorkerConfiguration(
            name: name,
            queues: ["gpu"],
            workDirectory: root + "/work",
            shutdownGrace: .milliseconds(100),
            environment: environment
        )
        change(&configuration)
        let flaky = FlakyStore(store)
        let metrics = MetricsRegistry()
        let worker = Worker(
            configuration: configuration,
            store: flaky,
            hints: hints ? (server.configuration(), store.keys.workerHints(name)) : nil,
            pipelines: [WorkerFixture.pipeline],
            backend: SubprocessBackend(command: command ?? ["sh", "-c", script], grace: .seconds(2)),
            registry: metrics,
            group: MultiThreadedEventLoopGroup.singleton,
            logger: Self.quiet
        )
        let ended = EndFlag()
        let run = Task {  // as a service is: ended by `stop`, or by itself
            defer { ended.value.store(true, ordering: .releasing) }
            try await worker.run()
        }
        let member = Member(worker: worker, store: flaky, metrics: metrics, run: run) { ended.value.load(ordering: .acquiring) }
        members.withLock { $0.append(member) }
        return member
    }

    private final class EndFlag: Sendable {
        let value = Atomic<Bool>(false)
    }

    private func stop() async {
        let members = members.withLock { $0 }
        for member in members { member.worker.enter(.stopping) }
        for member in members { _ = await member.run.result }
    }

    // MARK: What tests do all the time

    func submit(_ id: String, queue: String = "gpu", change: (inout JobSubmission) -> Void = { _ in }) async throws -> JobID {
        guard let job = JobID(id) else { throw TestSupportError(.process, "\(id) is no job id") }
        var submission = JobSubmission(id: job, queue: queue, pipeline: "relief", owner: .anonymous, paramsJSON: "{}")
        change(&submission)
        _ = try await store.submit(submission)
        return job
    }

    func snapshot(_ job: JobID) async throws -> JobSnapshot {
        guard let snapshot = try await store.snapshot(job) else { throw TestSupportError(.timedOut, "\(job) is absent") }
        return snapshot
    }

    @discardableResult
    func end(of job: JobID) async throws -> JobSnapshot {
        try await eventually(within: .seconds(60), "the end of \(job)") {
            let snapshot = try? await snapshot(job)
            return snapshot?.phase.isTerminal == true ? snapshot : nil
        }
    }

    /// Waits until so many clients are blocked in `BLPOP`.
    func isBlocked(_ count: Int) async throws {
        try await eventually(within: .seconds(30), "\(count) blocked clients") {
            try await server.cli("INFO", "clients").contains("blocked_clients:\(count)")
        }
    }

    /// Waits until a worker's record says so.
    func record(_ name: String, _ what: String, _ condition: (WorkerRecord) -> Bool) async throws {
        try await eventually(within: .seconds(30), what) {
            try await store.workers().first { $0.id == name }.map(condition) ?? false
        }
    }
}
