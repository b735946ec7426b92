import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import TestSupport

/// A store on a real Redis of the test's own, and what a test does with it all the time.
struct StoreFixture: Sendable {
    let server: RedisServer
    let redis: RedisClient
    let store: JobStore

    /// Short leases, so that a lost worker costs milliseconds; no pause between two reaps.
    static var quickSettings: StoreSettings {
        var settings = StoreSettings()
        settings.lease = .milliseconds(150)
        settings.cancelGrace = .milliseconds(100)
        settings.reapInterval = .zero
        return settings
    }

    static func with(
        _ options: RedisServer.Options = .init(),
        settings: StoreSettings = .init(),
        first: (RedisServer) async throws -> Void = { _ in },
        _ body: (StoreFixture) async throws -> Void
    ) async throws {
        let server = try await RedisServer.start(options)
        try await first(server)
        let group = MultiThreadedEventLoopGroup.singleton
        let redis = RedisClient(configuration: server.configuration(), eventLoopGroup: group, logger: .quiet)
        let running = Task { try await redis.run() }  // ended below: a client lives as long as its test
        do {
            let store = JobStore(redis: redis, keys: Keys(), settings: settings)
            // On a machine that is busy the client's task may begin late.
            try await eventually(within: .seconds(60), "the store is ready") { (try? await store.prepare()) != nil }
            try await body(StoreFixture(server: server, redis: redis, store: store))
        } catch {
            running.cancel()
            _ = await running.result
            throw error
        }
        running.cancel()
        _ = await running.result
    }

    func submit(
        _ id: String,
        queue: String = "gpu",
        params: String = "{}",
        change: (inout JobSubmission) -> Void = { _ in }
    ) async throws -> JobID {
        let job = try job(id)
        var submission = JobSubmission(id: job, queue: queue, pipeline: "relief", owner: .anonymous, paramsJSON: params)
        change(&submission)
        _ = try await store.submit(submission)
        return job
    }

    func job(_ id: String) throws -> JobID {
        guard let job = JobID(id) else { throw TestSupportError(.process, "\(id) is not a job id") }
        return job
    }

    /// Claims, and fails the test when there is nothing.
    func claim(_ queue: String = "gpu", worker: String = "w1", nonce: String = "\(UInt64.random(in: 0...UInt64.max))") async throws -> Claim
    {
        guard case .job(let claim) = try await store.claim(queue: queue, worker: worker, nonce: nonce) else {
            throw TestSupportError(.timedOut, "nothing to claim in \(queue)")
        }
        return claim
    }

    func snapshot(_ job: JobID) async throws -> JobSnapshot {
        guard let snapshot = try await store.snapshot(job) else { throw TestSupportError(.timedOut, "\(job) is absent") }
        return snapshot
    }

    /// Reaps until the job is where it should be.
    func reap(until job: JobID, _ what: String, _ condition: (JobSnapshot) -> Bool) async throws {
        try await eventually(within: .seconds(5), what) {
            _ = try await store.reap(queue: "gpu")
            return condition(try await snapshot(job))
        }
    }

    func keyNames() async throws -> [String] {
        (try await redis.send(["KEYS", "*"]).array ?? []).compactMap(\.string).sorted()
    }
}

extension Logger {
    static var quiet: Logger { Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }) }
}

extension ProgressState {
    static func generating(_ percent: Double, stage: String = "shape_generation") -> ProgressState {
        ProgressState(phase: .generating, phasePercent: percent, percent: percent, stage: stage, stagePercent: percent)
    }
}

/// The `StoreError` that `body` throws, nil when it throws none.
func storeError(_ body: () async throws -> some Any) async -> StoreError? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? StoreError
    }
}
