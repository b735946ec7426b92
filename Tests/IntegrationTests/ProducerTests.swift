import JobStore
import ProgressCore
import TestSupport
import Testing

/// Progress-only jobs with real producers: the programs of examples/progress-only, run as they are.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ProducerTests {
    private func producer(_ deployment: Deployment, _ name: String, _ arguments: [String]) throws -> HeadwayProcess {
        let path = "\(deployment.directory)/\(name)"
        return HeadwayProcess(
            process: try ChildProcess(
                "python3",
                [Deployment.file("examples/progress-only/\(name).py")] + arguments,
                outputPath: path + ".out",
                errorPath: path + ".err"
            ),
            outputPath: path + ".out",
            errorPath: path + ".err"
        )
    }

    /// The scripts as a user takes them.
    private func scripts(_ deployment: Deployment) async throws -> String {
        for name in ["open", "report", "heartbeat", "finish", "fail"] {
            let path = "\(deployment.directory)/\(name).lua"
            let printing = try ChildProcess(try Deployment.binary, ["scripts", name], outputPath: path)
            #expect(try await printing.waitForExit(within: .seconds(60)) == .status(0))
        }
        return deployment.directory
    }

    private func watcher(_ gateway: Deployment.Gateway, _ job: String) async throws -> WebSocketClient {
        let socket = try await WebSocketClient.connect(port: gateway.port, within: .seconds(30))
        _ = try await socket.watch([job], within: .seconds(30))
        return socket
    }

    private func expectTruth(_ socket: WebSocketClient, _ job: String, end: String) throws {
        expectTruthful(try WireEvent.lines(socket.events(of: job).map(\.text).joined(separator: "\n")), end: end)
    }

    @Test func anHTTPProducerIsWatchedToItsEnd() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let socket = try await watcher(gateway, "count")
            let producer = try producer(
                deployment,
                "http_producer",
                ["--gateway", gateway.url, "--job", "count", "--steps", "10", "--delay", "0.05"]
            )
            let end = try await socket.next(within: .seconds(60)) { $0.isTerminal }
            #expect(end.text.contains("\"result\":{\"counted\":10}"))
            #expect(try await producer.process.waitForExit(within: .seconds(30)) == .status(0), "\(producer.errors)")
            try expectTruth(socket, "count", end: "complete")
            #expect(socket.events(of: "count").contains { $0.text.contains("\"step\":7,\"steps\":10") })
        }
    }

    @Test func aKilledProducerFailsItsJob() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let socket = try await watcher(gateway, "count")
            let producer = try producer(
                deployment,
                "http_producer",
                ["--gateway", gateway.url, "--job", "count", "--steps", "100000", "--delay", "0.2"]
            )
            _ = try await socket.next(within: .seconds(60)) { $0.text.contains("\"step\":2,") }
            producer.kill()
            // Its lease runs out, only sooner than by itself.
            try await eventually(within: .seconds(60), "the end of the lease") {
                try await deployment.redis.cli("ZADD", "headway:{0}:queue:_:leases", "XX", "1", "count")
                return try await deployment.store.snapshot(#require(JobID("count")))?.phase == .failed
            }
            let end = try await socket.next(within: .seconds(60)) { $0.isTerminal }
            #expect(end.text.contains("\"code\":\"producer_lost\""))
            try expectTruth(socket, "count", end: "failed")
        }
    }

    @Test func aCancelReachesTheProducer() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let socket = try await watcher(gateway, "count")
            let producer = try producer(
                deployment,
                "http_producer",
                ["--gateway", gateway.url, "--job", "count", "--steps", "100000", "--delay", "0.1"]
            )
            _ = try await socket.next(within: .seconds(60)) { $0.text.contains("\"step\":2,") }
            #expect(try await HTTPText.post(gateway.port, "/v1/jobs/count/cancel", "{\"reason\":\"enough\"}").status == 200)
            #expect(try await producer.process.waitForExit(within: .seconds(60)) == .status(0), "\(producer.errors)")
            let end = try await socket.next(within: .seconds(60)) { $0.isTerminal }
            #expect(end.text.contains("\"reason\":\"enough\"") && !end.text.contains("forced"))
            try expectTruth(socket, "count", end: "cancelled")
        }
    }

    @Test func aRedisProducerNeedsNoGateway() async throws {
        try await Deployment.with { deployment in
            let scripts = try await scripts(deployment)
            let options = ["--redis", deployment.redis.url, "--scripts", scripts, "--delay", "0.02"]
            let producer = try producer(deployment, "redis_producer", options + ["--job", "count", "--steps", "15"])
            #expect(try await producer.process.waitForExit(within: .seconds(60)) == .status(0), "\(producer.errors)")
            let job = try #require(JobID("count"))
            let snapshot = try #require(try await deployment.store.snapshot(job))
            #expect(snapshot.phase == .complete && snapshot.fields["result"] == "{\"counted\": 15}")
            #expect(snapshot.fields["step"] == "15" && snapshot.fields["queue"] == Keys.heldQueue)
            let milestones = try await deployment.store.milestones(job, after: 0)
            #expect(milestones.map(\.phase) == [.queued, .generating, .complete])

            // The same id once more is somebody else's job.
            let second = try self.producer(deployment, "redis_producer", options + ["--job", "count"])
            #expect(try await second.process.waitForExit(within: .seconds(60)) == .status(1))
            #expect(second.errors.contains("is taken"))
        }
    }

    @Test func aRedisProducerHearsOfACancel() async throws {
        try await Deployment.with { deployment in
            let scripts = try await scripts(deployment)
            let options = ["--redis", deployment.redis.url, "--scripts", scripts, "--job", "count"]
            let producer = try producer(deployment, "redis_producer", options + ["--steps", "1000", "--delay", "0.1"])
            let job = try #require(JobID("count"))
            try await deployment.waitFor(job, percent: 0.1)
            #expect(try await deployment.store.cancel(job, by: "me", reason: "enough") == .requested(first: true))
            #expect(try await producer.process.waitForExit(within: .seconds(60)) == .status(0), "\(producer.errors)")
            #expect(try await deployment.store.snapshot(job)?.phase == .cancelled)
        }
    }
}
