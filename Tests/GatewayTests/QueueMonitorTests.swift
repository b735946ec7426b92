import JobStore
import ProgressCore
import Telemetry
import TestSupport
import Testing

@testable import Gateway

@Suite(.timeLimit(.minutes(5))) struct QueueMonitorTests {
    @Test func queuesAndWorkersAreCounted() async throws {
        let often = Change<GatewayConfiguration> { $0.limits.queueMetricsInterval = .milliseconds(50) }
        try await GatewayFixture.with(often) { fixture in
            let store = fixture.store
            for number in 0..<5 { _ = try await fixture.submit("j\(number)") }
            let later = try #require(JobID("later"))
            var delayed = JobSubmission(id: later, queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: "{}")
            delayed.delayMs = 600_000
            _ = try await store.submit(delayed)
            let lease = try await fixture.claim()
            _ = try await store.advance(lease, write: 1, to: ProgressState(phase: .generating, percent: 5, isStalled: true))
            try await store.registerQueues(["idle"])
            try await store.configure(queue: "idle", [.paused(true)])
            for (id, drains) in [("w1", false), ("w2", true)] {
                var record = WorkerRecord(
                    id: id,
                    host: "h",
                    pid: 1,
                    version: "0",
                    queues: ["gpu"],
                    pipeline: "relief",
                    concurrency: 1,
                    jobs: id == "w1" ? [lease.job.text] : [],
                    isDraining: drains
                )
                if drains { (record.slowedReason, record.slowedForMs) = ("it fails", 60_000) }
                try await store.registerWorker(record)
            }
            func level(_ name: MetricName, _ labels: KeyValuePairs<String, String> = [:]) -> Int {
                fixture.registry.gauge(name, labels: labels).value
            }
            try await eventually("the numbers of all of it") {
                level(.workersLive) == 2 && level(.workersDraining) == 1 && level(.workersSlowed) == 1 && level(.jobsStalled) == 1
                    && level(.queueJobs, ["queue": "gpu", "state": "ready"]) == 4
                    && level(.queueJobs, ["queue": "gpu", "state": "delayed"]) == 1
                    && level(.queueJobs, ["queue": "gpu", "state": "running"]) == 1
                    && level(.queueWorkers, ["queue": "gpu"]) == 1 && level(.queueWorkers, ["queue": "idle"]) == 0
                    && level(.queuePaused, ["queue": "idle"]) == 1 && level(.queuePaused, ["queue": "gpu"]) == 0
            }
            let text = try await fixture.ask("GET", "/metrics").text
            #expect(text.contains("headway_queue_jobs{queue=\"gpu\",state=\"ready\"} 4\n"))
        }
    }
}
