import JobStore
import Logging
import Telemetry

/// Reads now and then how queues and workers are, for `/metrics`: a worker has no port of its own to be asked at.
///
/// Every gateway tells the same; an alert takes the largest. While Redis is away the last values stay, and
/// `headway_queues_read_age_seconds` grows.
struct QueueMonitor: Sendable {
    private let store: JobStore
    private let limits: GatewayLimits
    private let registry: MetricsRegistry
    private let logger: Logger
    private let workers: Gauge
    private let draining: Gauge
    private let slowed: Gauge
    private let stalled: Gauge
    private let age: Gauge

    init(store: JobStore, limits: GatewayLimits, registry: MetricsRegistry, logger: Logger) {
        self.store = store
        self.limits = limits
        self.registry = registry
        self.logger = logger
        workers = registry.gauge(.workersLive)
        draining = registry.gauge(.workersDraining)
        slowed = registry.gauge(.workersSlowed)
        stalled = registry.gauge(.jobsStalled)
        age = registry.gauge(.queuesReadAge)
    }

    /// Until cancelled.
    func run() async {
        var lastRead = ContinuousClock.now
        while !Task.isCancelled {
            do throws(StoreError) {
                try await read()
                lastRead = .now
            } catch {
                logger.debug("queues not read", metadata: [LogKey.errorCode: "\(error.code.rawValue)"])
            }
            age.set(Int((ContinuousClock.now - lastRead).components.seconds))
            do { try await Task.sleep(for: limits.queueMetricsInterval) } catch { return }
        }
    }

    func read() async throws(StoreError) {
        let records = try await store.workers()
        let running = try await store.runningJobs(of: records)
        workers.set(records.count)
        draining.set(records.count { $0.isDraining })
        slowed.set(records.count { $0.slowedReason != nil })
        stalled.set(running.count { $0.isStalled })
        var serving: [String: Int] = [:]
        for record in records where !record.isDraining {
            for queue in record.queues { serving[queue, default: 0] += 1 }
        }
        for queue in try await store.queues().prefix(limits.queues) {
            for (state, count) in [
                ("ready", queue.ready), ("delayed", queue.delayed), ("parked", queue.parked), ("running", queue.running),
                ("dead", queue.dead),
            ] {
                registry.gauge(.queueJobs, labels: ["queue": queue.name, "state": state]).set(count)
            }
            registry.gauge(.queuePaused, labels: ["queue": queue.name]).set(queue.isPaused ? 1 : 0)
            registry.gauge(.queueWorkers, labels: ["queue": queue.name]).set(serving[queue.name] ?? 0)
        }
    }
}
