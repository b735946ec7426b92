/// A metric's name and help line: `headway_<room>_<thing>_<unit|total>`.
///
/// Here are those of the gateway's HTTP half, of queues and of workers as a gateway sees them; hub, forecasts and worker name theirs in
/// their own metrics files.
///
/// Labels come from closed sets (a route's pattern, a status class), never from an id or a URL.
public struct MetricName: Sendable, Hashable {
    public let text: String
    public let help: String

    public init(_ text: String, _ help: String) {
        self.text = text
        self.help = help
    }

    // Gateway, HTTP half
    public static let httpConnections = MetricName("headway_gateway_open_sockets", "Open sockets of clients, streams included.")
    public static let httpConnectionsTotal = MetricName("headway_gateway_connections_total", "Connections accepted.")
    public static let httpConnectionsRefused = MetricName(
        "headway_gateway_connections_refused_total",
        "Connections closed at once because too many were open."
    )
    public static let httpRequests = MetricName("headway_gateway_requests_total", "Requests answered, by route and status class.")
    public static let httpDuration = MetricName(
        "headway_gateway_request_seconds",
        "From the whole head to the answer, by route; long polls excluded."
    )
    public static let httpTimeouts = MetricName("headway_gateway_timeouts_total", "Connections closed because the client was too slow.")
    public static let httpMalformed = MetricName(
        "headway_gateway_malformed_total",
        "Connections closed because of bytes that are not HTTP."
    )
    public static let uploadedBytes = MetricName("headway_gateway_uploaded_bytes_total", "Bytes of uploads and result files taken in.")
    public static let servedBytes = MetricName("headway_gateway_served_bytes_total", "Bytes of uploads and result files given out.")
    public static let blobsSwept = MetricName("headway_gateway_blobs_swept_total", "Uploads and job directories removed after their time.")
    public static let gatewayLink = MetricName(
        "headway_gateway_link_healthy",
        "1 while the end-to-end canary through Redis's pub/sub comes back."
    )
    public static let auditFindings = MetricName(
        "headway_audit_findings",
        "Findings that the last audit of this gateway could not repair; `headway audit` lists them."
    )
    public static let auditRepaired = MetricName("headway_audit_repaired_total", "Findings that audits of this gateway repaired.")
    public static let queueJobs = MetricName("headway_queue_jobs", "Jobs of a queue, by where they are.")
    public static let queuePaused = MetricName("headway_queue_paused", "1 while the queue is paused.")
    public static let queueWorkers = MetricName("headway_queue_workers", "Live workers that take jobs of the queue.")
    public static let workersLive = MetricName("headway_workers_live", "Workers that gave a sign of life lately.")
    public static let workersDraining = MetricName("headway_workers_draining", "Live workers that take no more jobs.")
    public static let workersSlowed = MetricName("headway_workers_slowed", "Live workers that pause because their jobs fail at once.")
    public static let jobsStalled = MetricName("headway_jobs_stalled", "Running jobs of workers without progress for unusually long.")
    public static let queuesReadAge = MetricName(
        "headway_queues_read_age_seconds",
        "Age of the values of queues and workers; it grows while Redis is away."
    )
    public static let gatewayDraining = MetricName("headway_gateway_draining", "1 from SIGTERM on.")
}

extension MetricsRegistry {
    public func counter(_ name: MetricName, labels: KeyValuePairs<String, String> = [:]) -> Counter {
        counter(name.text, help: name.help, labels: labels)
    }

    public func gauge(_ name: MetricName, labels: KeyValuePairs<String, String> = [:]) -> Gauge {
        gauge(name.text, help: name.help, labels: labels)
    }

    public func histogram(_ name: MetricName, labels: KeyValuePairs<String, String> = [:]) -> Histogram {
        histogram(name.text, help: name.help, labels: labels)
    }
}
