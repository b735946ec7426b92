import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Telemetry
import TestSupport

@testable import Gateway

/// A gateway on a real socket over a real Redis, both of the test's own.
struct LiveGateway {
    let redis: RedisServer
    let store: JobStore
    let port: Int
    let registry: MetricsRegistry

    static func with(_ body: (LiveGateway) async throws -> Void) async throws {
        let redis = try await RedisServer.start(.init(isDurable: true))
        let directory = try makeTemporaryDirectory(prefix: "hw-live")
        defer {
            redis.kill()
            removeDirectory(directory)
        }
        let group = MultiThreadedEventLoopGroup.singleton
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let client = RedisClient(configuration: redis.configuration(), eventLoopGroup: group, logger: logger)
        let store = JobStore(redis: client, keys: Keys())
        let registry = MetricsRegistry()
        let configuration = GatewayConfiguration(
            port: 0,
            dataDirectory: directory,
            allowAnyQueue: true,
            drainWindow: .milliseconds(100)
        )
        let server = GatewayServer(
            configuration: configuration,
            store: store,
            redis: redis.configuration(),
            registry: registry,
            group: group,
            logger: logger
        )
        // Both are services that run until they are cancelled, which the end of the test does.
        let services = [Task { try await client.run() }, Task { try await server.run() }]
        var failure: (any Error)?
        do {
            _ = try await store.prepare()
            let port = try await server.waitUntilListening().port ?? 0
            try await body(LiveGateway(redis: redis, store: store, port: port, registry: registry))
        } catch {
            failure = error
        }
        services[1].cancel()
        _ = await services[1].result
        services[0].cancel()
        _ = await services[0].result
        if let failure { throw failure }
    }

    func submit(_ name: String) async throws -> JobID {
        let job = HubWorld.job(name)
        _ = try await store.submit(JobSubmission(id: job, queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: "{}"))
        return job
    }

    func claim() async throws -> Lease {
        guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "w", nonce: "\(UInt64.random(in: 0...UInt64.max))") else {
            throw TestSupportError(.process, "nothing to claim")
        }
        return claim.lease
    }

    /// Moves the job through `steps` bar movements in three stages, and ends it.
    func work(_ lease: Lease, steps: Int, pause: Duration? = nil) async throws {
        var write = 0
        for step in 1...steps {
            write += 1
            let stage = step * 3 / (steps + 1)
            let phase: Phase = stage == 0 ? .analyzing : stage == 1 ? .generating : .postProcessing
            var state = ProgressState(phase: phase, percent: Double(step) * 99 / Double(steps))
            state.stage = "stage\(stage)"
            state.step = step
            _ = try await store.advance(lease, write: write, to: state)
            if let pause { try await Task.sleep(for: pause) }
        }
        _ = try await store.finish(lease, as: .complete, resultJSON: "{\"ok\":true}", stagesMs: [])
    }
}

/// A hub of its own on a real Redis.
func withHub(on redis: RedisServer, limits: HubLimits = .init(), _ body: (Hub, JobStore) async throws -> Void) async throws {
    let group = MultiThreadedEventLoopGroup.singleton
    let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    let client = RedisClient(configuration: redis.configuration(), eventLoopGroup: group, logger: logger)
    let store = JobStore(redis: client, keys: Keys())
    let hub = Hub(
        store: store,
        redis: redis.configuration(),
        group: group,
        registry: MetricsRegistry(),
        limits: limits,
        logger: logger
    )
    // Both run until they are cancelled, which the end of the test does.
    let services = [Task { try await client.run() }, Task { try await hub.run() }]
    var failure: (any Error)?
    do {
        try await body(hub, store)
    } catch {
        failure = error
    }
    for service in services {
        service.cancel()
        _ = await service.result
    }
    if let failure { throw failure }
}
