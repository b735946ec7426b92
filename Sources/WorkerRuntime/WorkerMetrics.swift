import Telemetry

/// What a worker counts. Made once, kept; an update is an atomic add.
struct WorkerMetrics: Sendable {
    let claims: Counter
    let running: Gauge
    let reports: Counter
    let reportTime: Histogram
    let clamped: Counter
    let storeErrors: Counter
    let logLinesDropped: Counter
    let transferredBytes: Counter
    let slowed: Gauge
    let slowdowns: Counter
    private let ends: [JobEnd: Counter]

    init(_ registry: MetricsRegistry) {
        claims = registry.counter("headway_worker_claims_total", help: "Jobs claimed.")
        running = registry.gauge("headway_worker_jobs_running", help: "Jobs running now.")
        reports = registry.counter("headway_worker_reports_total", help: "Progress states written.")
        reportTime = registry.histogram("headway_worker_report_seconds", help: "Time of one progress write, as the worker sees it.")
        clamped = registry.counter("headway_worker_reports_clamped_total", help: "Progress writes whose percent was held.")
        storeErrors = registry.counter(
            "headway_worker_store_errors_total",
            help: "Calls to Redis that failed and were repeated or given up."
        )
        logLinesDropped = registry.counter("headway_worker_log_lines_dropped_total", help: "Log lines of generators that were not kept.")
        transferredBytes = registry.counter(
            "headway_worker_transferred_bytes_total",
            help: "Bytes of inputs fetched and outputs delivered."
        )
        slowed = registry.gauge("headway_worker_slowed", help: "1 while it takes no jobs because the last ones failed at once.")
        slowdowns = registry.counter(
            "headway_worker_slowdowns_total",
            help: "Pauses because jobs failed at once or the command could not be started."
        )
        var ends: [JobEnd: Counter] = [:]
        for end in JobEnd.allCases {
            ends[end] = registry.counter(
                "headway_worker_jobs_total",
                help: "Jobs this worker was done with, by how.",
                labels: ["outcome": end.rawValue]
            )
        }
        self.ends = ends
    }

    func count(_ end: JobEnd) { ends[end]?.increment() }
}
