import Glibc
import JobStore
import ProgressCore
import TestSupport
import Testing

/// The fault table with real processes: each is killed while a job runs, and a watcher sees the truth to the end.
@Suite(.serialized, .timeLimit(.minutes(4))) struct FaultTests {
    private static let params = "{\"steps\":40,\"delay_ms\":60,\"stages\":[\"analysis\",\"making\"]}"

    /// A watcher that is a process of its own: `headway watch --json`.
    private func watch(_ deployment: Deployment, _ job: JobID, _ gateway: Deployment.Gateway) async throws -> HeadwayProcess {
        let watcher = try deployment.headway("watch-\(job)", ["watch", job.text, "--json", "--gateway", gateway.url])
        _ = try await watcher.line(startingWith: "{")
        return watcher
    }

    @Test func aKilledGatewayIsReplacedUnderTheWatcher() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway("first")
            _ = try await deployment.worker()
            let job = try await deployment.submit("a", params: Self.params)
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 20)
            gateway.process.kill()
            _ = try await deployment.gateway("second", port: gateway.port)
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(0))
            expectTruthful(try WireEvent.lines(watcher.output), end: "complete")
        }
    }

    @Test func aKilledWorkerCostsOneAttempt() async throws {
        var settings = StoreSettings()
        settings.lease = .seconds(1)
        try await Deployment.with(settings: settings) { deployment in
            let gateway = try await deployment.gateway()
            let flags = ["--lease", "1000ms", "--heartbeat", "250ms"]
            let victim = try await deployment.worker("victim", flags: flags)
            let job = try await deployment.submit("a", params: Self.params)
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 20)
            victim.kill()
            _ = try await deployment.worker("heir", flags: flags)
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(0))
            let events = try WireEvent.lines(watcher.output)
            expectTruthful(events, end: "complete")
            #expect(events.last?.attempt == 2)
        }
    }

    @Test func aKilledWorkerWithoutHeirEndsTheJob() async throws {
        var settings = StoreSettings()
        settings.lease = .seconds(1)
        settings.defaultMaxAttempts = 1
        try await Deployment.with(settings: settings) { deployment in
            let gateway = try await deployment.gateway()
            let victim = try await deployment.worker("victim", flags: ["--lease", "1000ms", "--heartbeat", "250ms"])
            let job = try await deployment.submit("a", params: Self.params)
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 10)
            victim.kill()
            // No worker is left: the gateway reaps.
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(1))
            expectTruthful(try WireEvent.lines(watcher.output), end: "failed")
            #expect(watcher.output.contains("worker_lost"))
        }
    }

    @Test func aKilledRedisComesBackWithTheTruth() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            _ = try await deployment.worker()
            let job = try await deployment.submit("a", params: Self.params)
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 20)
            deployment.redis.kill()
            // The watcher stays connected and is told, before Redis is back.
            _ = try await watcher.line(startingWith: "{\"type\":\"degraded\"")
            try await deployment.redis.start()
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(0))
            let events = try WireEvent.lines(watcher.output)
            expectTruthful(events, end: "complete")
            #expect(events.last?.attempt == 1, "the worker went on through the outage")
        }
    }

    @Test func aFrozenWorkerThatComesBackIsRefused() async throws {
        var settings = StoreSettings()
        settings.lease = .seconds(1)
        try await Deployment.with(settings: settings) { deployment in
            let gateway = try await deployment.gateway()
            let flags = ["--lease", "1000ms", "--heartbeat", "250ms"]
            let frozen = try await deployment.worker("frozen", flags: flags)
            let job = try await deployment.submit("a", params: Self.params)
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 20)
            frozen.process.signal(SIGSTOP)
            _ = try await deployment.worker("heir", flags: flags)
            try await eventually(within: .seconds(30), "the heir's attempt moves") {
                let fields = try await deployment.store.snapshot(job)?.fields
                return fields?["attempt"] == "2" && fields?["phase"] != "QUEUED"
            }
            frozen.process.signal(SIGCONT)
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(0))
            let events = try WireEvent.lines(watcher.output)
            expectTruthful(events, end: "complete")
            #expect(events.last?.attempt == 2)
        }
    }

    @Test func aRunningJobIsCancelledAndItsProcessesAreGone() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            _ = try await deployment.worker()
            let job = try await deployment.submit("a", params: "{\"steps\":1000,\"delay_ms\":50}")
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 1)
            let cancel = try deployment.headway("cancel", ["cancel", "a", "--reason", "changed my mind", "--gateway", gateway.url])
            #expect(try await cancel.process.waitForExit() == .status(0))
            #expect(try await watcher.process.waitForExit(within: .seconds(30)) == .status(3))
            expectTruthful(try WireEvent.lines(watcher.output), end: "cancelled")
            #expect(watcher.output.contains("changed my mind"))
        }
    }

    /// Steps every tenth of a second, and then silence: that is said after some seconds, and ends the job only where that was asked for.
    @Test func aGeneratorThatFallsSilentIsShownAndThenEnded() async throws {
        var settings = StoreSettings()
        settings.defaultMaxAttempts = 1
        try await Deployment.with(settings: settings) { deployment in
            let gateway = try await deployment.gateway()
            let script = """
                echo $$ >"$HEADWAY_OUTPUT_DIR/../../pid"
                for i in 1 2 3 4 5 6 7 8; do echo "{\\"stage\\":\\"making\\",\\"step\\":$i,\\"steps\\":40}" >&3; sleep 0.1; done
                sleep 300
                """
            let worker = try await deployment.worker(
                command: ["sh", "-c", script],
                flags: ["--name", "w1", "--stall-kill", "6s"]
            )
            let job = try await deployment.submit("a")
            let watcher = try await watch(deployment, job, gateway)
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(1))
            let events = try WireEvent.lines(watcher.output)
            expectTruthful(events, end: "failed")
            let silent = events.filter { $0.stalled == true }
            #expect(!silent.isEmpty && silent.allSatisfy { $0.phase == "GENERATING" && $0.type == "progress" }, "\(watcher.output)")
            let error = try await deployment.store.snapshot(job)?.fields["error"] ?? ""
            #expect(error.contains(#""code":"stalled""#) && error.contains("6000 ms") && error.contains(#""recoverable":true"#), "\(error)")
            let text = try #require(readFile("\(deployment.directory)/worker-work/w1/pid"))
            let pid = try #require(Int32(text.filter(\.isNumber)))
            #expect(Glibc.kill(pid, 0) != 0, "its generator is gone")
            #expect(worker.process.exit == nil)
        }
    }

    @Test func aWorkerToldToStopHandsItsJobBack() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let first = try await deployment.worker("first", flags: ["--shutdown-grace", "200ms"])
            let job = try await deployment.submit("a", params: Self.params)
            let watcher = try await watch(deployment, job, gateway)
            try await deployment.waitFor(job, percent: 10)
            first.process.signal(SIGTERM)
            #expect(try await first.process.waitForExit(within: .seconds(20)) == .status(0))
            #expect(try await deployment.store.snapshot(job)?.phase == .queued)
            _ = try await deployment.worker("second")
            #expect(try await watcher.process.waitForExit(within: .seconds(60)) == .status(0))
            expectTruthful(try WireEvent.lines(watcher.output), end: "complete")
        }
    }
}
