import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry

/// Health, metrics, and the lists for dashboards and pages.
struct SystemRoutes: Sendable {
    let context: RouteContext
    let isDraining: @Sendable () -> Bool
    private let queueList: CachedText
    private let workerList: CachedText

    init(context: RouteContext, isDraining: @escaping @Sendable () -> Bool) {
        self.context = context
        self.isDraining = isDraining
        let store = context.store
        queueList = CachedText(age: context.limits.listAge) { try await Self.queues(store) }
        workerList = CachedText(age: context.limits.listAge) { try await Self.workers(store) }
    }

    var routes: [Route] {
        let registry = context.registry
        let pipelines = Self.pipelines(context.pipelines)
        return [
            Route(.GET, "/livez", registry: registry, .immediate { _ in .text("live\n") }),
            Route(.GET, "/readyz", registry: registry, .immediate(ready)),
            Route(
                .GET,
                "/metrics",
                registry: registry,
                .immediate { _ in .text(registry.exposition(), contentType: "text/plain; version=0.0.4; charset=utf-8") }
            ),
            Route(.GET, "/v1/queues", registry: registry, .task(bodyLimit: 0) { _ in .json(try await queueList.text()) }),
            Route(.GET, "/v1/workers", registry: registry, .task(bodyLimit: 0) { _ in .json(try await workerList.text()) }),
            Route(.GET, "/v1/pipelines", registry: registry, .immediate { _ in .json(pipelines) }),
        ]
    }

    /// Not ready only when another gateway would serve better: see docs/operations.md.
    private func ready(_ request: HTTPRequest) -> HTTPResponse {
        if isDraining() { return state("draining", status: 503) }
        switch context.health.verdict {
        case .ready: return state("ready", status: 200)
        case .degraded: return state("degraded", status: 200)
        case .linkDead: return state("link_dead", status: 503)
        }
    }

    private func state(_ name: String, status: Int) -> HTTPResponse { .json("{\"status\":\"\(name)\"}\n", status: status) }

    private static func queues(_ store: JobStore) async throws -> String {
        let rows = try await store.queues().map { queue in
            let limits: [(String, Int?)] = [
                ("max_depth", queue.limits.maxDepth), ("max_running", queue.limits.maxRunning),
                ("tenant_max_queued", queue.limits.tenantMaxQueued), ("tenant_max_running", queue.limits.tenantMaxRunning),
            ]
            return "{\"name\":\"\(queue.name)\",\"ready\":\(queue.ready),\"delayed\":\(queue.delayed),\"parked\":\(queue.parked),"
                + "\"running\":\(queue.running),\"dead\":\(queue.dead),\"paused\":\(queue.isPaused),\"draining\":\(queue.isDraining)"
                + limits.map { name, limit in limit.map { ",\"\(name)\":\($0)" } ?? "" }.joined() + "}"
        }
        return "{\"queues\":[\(rows.joined(separator: ","))]}"
    }

    private static func workers(_ store: JobStore) async throws -> String {
        func list(_ texts: [String]) -> String { "[" + texts.map(JSONText.quoted).joined(separator: ",") + "]" }
        let rows = try await store.workers().map {
            "{\"id\":\(JSONText.quoted($0.id)),\"host\":\(JSONText.quoted($0.host)),\"version\":\(JSONText.quoted($0.version)),"
                + "\"queues\":\(list($0.queues)),\"labels\":\(list($0.labels)),\"pipeline\":\(JSONText.quoted($0.pipeline)),"
                + "\"concurrency\":\($0.concurrency),\"gpus\":[\($0.gpus.map(gpu).joined(separator: ","))],"
                + "\"jobs\":\(list($0.jobs)),\"finished\":\($0.finished),\"failed\":\($0.failed),\"draining\":\($0.isDraining),"
                + ($0.slowedReason.map { "\"slowed_reason\":\(JSONText.quoted($0))," } ?? "")
                + "\"started_at\":\($0.startedAtMs),\"up_ms\":\($0.upMs),\"silent_ms\":\($0.silentMs)}"
        }
        return "{\"workers\":[\(rows.joined(separator: ","))]}"
    }

    private static func gpu(_ gpu: WorkerRecord.GPU) -> String {
        "{\"name\":\(JSONText.quoted(gpu.name))" + (gpu.memoryMB.map { ",\"memory_mb\":\($0)" } ?? "")
            + (gpu.memoryUsedMB.map { ",\"memory_used_mb\":\($0)" } ?? "") + "}"
    }

    private static func pipelines(_ pipelines: [Pipeline]) -> String {
        let rows = pipelines.map { pipeline in
            let stages = pipeline.stages.map { stage in
                "{\"name\":\(JSONText.quoted(stage.name)),\"phase\":\"\(stage.phase.rawValue)\",\"weight\":\(stage.weight)"
                    + (stage.expectedMs.map { ",\"expected_ms\":\($0)" } ?? "") + "}"
            }
            return "{\"name\":\(JSONText.quoted(pipeline.name)),\"stages\":[\(stages.joined(separator: ","))]}"
        }
        return "{\"pipelines\":[\(rows.joined(separator: ","))]}"
    }
}
