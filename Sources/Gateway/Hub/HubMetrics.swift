import Telemetry

/// What the live half of the gateway counts; asked once, kept, updated by atomic adds.
struct HubMetrics: Sendable {
    let sessions: [Gauge]
    let deliveries: Counter
    let conflated: Counter
    let droppedLossy: Counter
    let resyncs: Counter
    let gaps: Counter
    let resets: Counter
    let reconciled: Counter
    let reads: Counter
    let failedReads: Counter
    let refused: Counter
    let stalledSockets: Counter
    let badPayloads: Counter
    let jobs: Gauge
    let linkUp: Gauge
    let delivery: Histogram

    init(registry: MetricsRegistry) {
        func dropped(_ reason: String) -> Counter {
            registry.counter("headway_gateway_dropped_total", help: "Events not sent to a watcher, by reason", labels: ["reason": reason])
        }
        func connections(_ transport: String) -> Gauge {
            registry.gauge("headway_gateway_connections", help: "Live connections, by transport", labels: ["transport": transport])
        }
        sessions = [connections("websocket"), connections("sse"), connections("sse_multi")]
        deliveries = registry.counter("headway_gateway_deliveries_total", help: "Events handed to watchers' sockets")
        conflated = dropped("conflated")
        droppedLossy = dropped("lossy")
        resyncs = registry.counter("headway_gateway_resyncs_total", help: "Stalled watchers caught up from Redis")
        gaps = registry.counter("headway_gateway_gaps_total", help: "Missing events noticed and read from Redis")
        resets = registry.counter("headway_gateway_resets_total", help: "Jobs whose history went back")
        reconciled = registry.counter("headway_gateway_reconciled_total", help: "Silent jobs found changed in Redis")
        reads = registry.counter("headway_gateway_reads_total", help: "Jobs read from Redis")
        failedReads = registry.counter("headway_gateway_failed_reads_total", help: "Reads from Redis that failed and are repeated")
        refused = registry.counter("headway_gateway_refused_total", help: "Connections and watches over a limit")
        stalledSockets = registry.counter("headway_gateway_stalled_sockets_total", help: "Sockets closed at the write deadline")
        badPayloads = registry.counter("headway_gateway_bad_payloads_total", help: "Published messages that are not events")
        jobs = registry.gauge("headway_gateway_watched_jobs", help: "Jobs subscribed to")
        linkUp = registry.gauge("headway_gateway_subscriber_up", help: "1 while the subscription connection works")
        delivery = registry.histogram(
            "headway_gateway_delivery_seconds",
            help: "From a message's arrival to the flush of its watchers' sockets",
            boundsUs: [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000]
        )
    }
}
