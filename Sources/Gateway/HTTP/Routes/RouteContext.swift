import JobStore
import Logging
import ProgressCore
import Synchronization
import Telemetry

/// What the routes work with.
struct RouteContext: Sendable {
    let store: JobStore
    let hub: Hub
    let blobs: any BlobStore
    let limits: GatewayLimits
    let pipelines: [Pipeline]
    let registry: MetricsRegistry
    let environment: GatewayEnvironment
    let queues: QueueNames
    let health: HealthMonitor
    let logger: Logger

    func requirePipeline(_ name: String) throws(GatewayError) {
        guard pipelines.contains(where: { $0.name == name }) else {
            let known = pipelines.map(\.name).joined(separator: ", ")
            throw GatewayError(.unknownPipeline, "there is no pipeline '\(name)'; there are: \(known)", field: "pipeline")
        }
    }
}

/// The registered queues, read again when they are old, or when a name is not among them (a queue that was just registered).
final class QueueNames: Sendable {
    private let store: JobStore
    private let limits: GatewayLimits
    private let allowsAny: Bool
    private let known = Mutex<(names: Set<String>, readAt: ContinuousClock.Instant?)>(([], nil))

    init(store: JobStore, limits: GatewayLimits, allowsAny: Bool) {
        self.store = store
        self.limits = limits
        self.allowsAny = allowsAny
    }

    /// Throws `.unknownQueue` naming the queues that exist. Where any queue is allowed it is registered instead, so that it is listed
    /// and looked after.
    func require(_ name: String) async throws {
        let now = ContinuousClock.now
        let (names, readAt) = known.withLock { $0 }
        let age = readAt.map { now - $0 } ?? .seconds(1_000_000)
        if names.contains(name), age < limits.queueListAge { return }
        var fresh = names
        if age >= limits.queueListRetry {
            fresh = try await store.queueNames()
            known.withLock { $0 = (fresh, now) }
        }
        if allowsAny, !fresh.contains(name), fresh.count < limits.queues, StoreLimits.isQueueName(name) {
            try await store.registerQueues([name])
            known.withLock { _ = $0.names.insert(name) }
            return
        }
        guard fresh.contains(name) else {
            let some = fresh.sorted().prefix(10).joined(separator: ", ")
            throw GatewayError(
                .unknownQueue,
                some.isEmpty
                    ? "there is no queue '\(name)': no worker has registered one yet; start a worker for it"
                    : "there is no queue '\(name)'; there are: \(some)",
                field: "queue"
            )
        }
    }
}
