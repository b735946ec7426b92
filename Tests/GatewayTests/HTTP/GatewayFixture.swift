import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import ServiceLifecycle
import Telemetry
import TestSupport

@testable import Gateway

/// A whole gateway with a Redis and a data directory of its own, run by a service group as the executable runs it.
struct GatewayFixture: Sendable {
    let redis: RedisServer
    let store: JobStore
    let registry: MetricsRegistry
    let port: Int
    let dataDirectory: String
    private let services: ServiceGroup

    static let pipelines = [
        Pipeline(
            name: "relief",
            stages: [
                Pipeline.Stage(name: "shape_generation", phase: .generating, weight: 0.75, expectedMs: 1000),
                Pipeline.Stage(name: "mesh_export", phase: .postProcessing, weight: 0.25),
            ]
        ),
        Pipeline(name: "generic", stages: []),
    ]

    /// Queue `gpu` is registered.
    static func with(
        _ change: Change<GatewayConfiguration> = .init { _ in },
        _ body: (GatewayFixture) async throws -> Void
    ) async throws {
        let redis = try await RedisServer.start()
        let directory = try makeTemporaryDirectory(prefix: "hw-gateway")
        defer {
            redis.kill()
            removeDirectory(directory)
        }
        let group = MultiThreadedEventLoopGroup.singleton
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let client = RedisClient(configuration: redis.configuration(), eventLoopGroup: group, logger: logger)
        let store = JobStore(redis: client, keys: Keys())
        let registry = MetricsRegistry()
        var configuration = GatewayConfiguration(
            port: 0,
            dataDirectory: directory + "/data",
            pipelines: Self.pipelines,
            drainWindow: .milliseconds(200)
        )
        configuration.limits.freeDiskBytes = 0
        configuration.limits.listAge = .zero
        configuration.limits.healthInterval = .milliseconds(50)
        change.apply(&configuration)
        let server = GatewayServer(
            configuration: configuration,
            store: store,
            redis: redis.configuration(),
            registry: registry,
            group: group,
            logger: logger
        )
        let services = ServiceGroup(services: [ClientService(client: client), server], logger: logger)
        let running = Task { try await services.run() }  // ends with the test, below
        var failure: (any Error)?
        do {
            _ = try await store.prepare()
            try await store.registerQueues(["gpu"])
            let port = try await server.waitUntilListening().port ?? 0
            try await body(
                GatewayFixture(
                    redis: redis,
                    store: store,
                    registry: registry,
                    port: port,
                    dataDirectory: directory + "/data",
                    services: services
                )
            )
        } catch {
            failure = error
        }
        running.cancel()
        _ = await running.result
        if let failure { throw failure }
    }

    /// As SIGTERM does.
    func stop() async { await services.triggerGracefulShutdown() }

    func connect() async throws -> RawClient { try await RawClient.connect(port: port) }

    /// One request on a connection of its own.
    func ask(_ method: String, _ path: String, headers: [(String, String)] = [], body: [UInt8]? = nil) async throws -> RawClient.Response {
        try await connect().ask(method, path, headers: headers, body: body)
    }

    func ask(_ method: String, _ path: String, json: String) async throws -> RawClient.Response {
        try await connect().ask(method, path, json: json)
    }

    func submit(_ id: String, owner: Owner = .anonymous, params: String = "{}") async throws -> JobID {
        guard let job = JobID(id) else { throw TestSupportError(.process, "\(id) is no job id") }
        _ = try await store.submit(JobSubmission(id: job, queue: "gpu", pipeline: "relief", owner: owner, paramsJSON: params))
        return job
    }

    func snapshot(_ id: String) async throws -> JobSnapshot {
        guard let job = JobID(id), let snapshot = try await store.snapshot(job) else { throw TestSupportError(.process, "\(id) is absent") }
        return snapshot
    }

    func claim() async throws -> Lease {
        guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "w", nonce: "\(UInt64.random(in: 0...UInt64.max))") else {
            throw TestSupportError(.process, "nothing to claim")
        }
        return claim.lease
    }

    /// Ends last, so that the gateway can use Redis while it drains.
    private struct ClientService: Service {
        let client: RedisClient
        func run() async throws { try await client.run() }
    }
}

/// What a test wants otherwise than usual.
struct Change<Value> {
    let apply: (inout Value) -> Void
}
