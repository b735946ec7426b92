import JobStore
import NIOCore
import ProgressCore
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// The whole way: worker's write, Redis, gateway, socket.
struct LiveGatewayTests {
    @Test(.timeLimit(.minutes(5)))
    func bothTransportsShowTheSameJobToTheSameEnd() async throws {
        try await LiveGateway.with { gateway in
            let job = try await gateway.submit("same")
            let socket = try await WebSocketClient.connect(port: gateway.port)
            try await socket.watch([job.text])
            let stream = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/\(job)/events")
            #expect(stream.status == 200)
            _ = try await socket.next { $0.job == job.text && $0.phase == "QUEUED" }
            _ = try await stream.next { $0.job == job.text && $0.phase == "QUEUED" }
            try await gateway.work(try await gateway.claim(), steps: 60)
            _ = try await socket.next { $0.isTerminal }
            _ = try await stream.next { $0.isTerminal }
            try await eventually { stream.isClosed }
            let fromSocket = socket.events(of: job.text).filter { $0.seq != nil }
            let fromStream = stream.events(of: job.text).filter { $0.seq != nil }
            #expect(fromSocket.map(\.text) == fromStream.map(\.text))
            let seqs = fromSocket.compactMap(\.seq)
            #expect(seqs == Array(1...(seqs.last ?? 0)))
            let milestones = try await gateway.store.milestones(job, after: 0)
            #expect(fromSocket.filter(\.isMilestone).compactMap(\.seq) == milestones.map(\.seq))
            #expect(stream.lastEventID == "end")
            await socket.close()
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func aStreamResumesBehindItsLastEventID() async throws {
        try await LiveGateway.with { gateway in
            let job = try await gateway.submit("resume")
            let lease = try await gateway.claim()
            try await gateway.work(lease, steps: 30)
            let milestones = try await gateway.store.milestones(job, after: 0)
            let middle = milestones[milestones.count / 2].seq
            let stream = try await SSEClient.connect(
                port: gateway.port,
                path: "/v1/jobs/\(job)/events",
                lastEventID: "\(middle)"
            )
            _ = try await stream.next { $0.isTerminal }
            #expect(stream.events(of: job.text).compactMap(\.seq) == milestones.map(\.seq).filter { $0 > middle })
            let ended = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/\(job)/events", lastEventID: "end")
            #expect(ended.status == 204)
            await ended.close()
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func redisMayDieAndComeBackUnderAWatcher() async throws {
        try await LiveGateway.with { gateway in
            let job = try await gateway.submit("phoenix")
            let socket = try await WebSocketClient.connect(port: gateway.port)
            try await socket.watch([job.text])
            _ = try await socket.next { $0.phase == "QUEUED" }
            gateway.redis.kill()
            _ = try await socket.next(within: .seconds(10)) { $0.type == "degraded" }
            try await gateway.redis.start()
            let lease = try await eventually(within: .seconds(20), "a claim after the restart") { try? await gateway.claim() }
            try await gateway.work(lease, steps: 30)
            _ = try await socket.next(within: .seconds(40)) { $0.isTerminal }
            let seqs = socket.events(of: job.text).compactMap(\.seq)
            #expect(zip(seqs, seqs.dropFirst()).allSatisfy { $0 < $1 })
            let milestones = try await gateway.store.milestones(job, after: 1)
            #expect(Set(seqs).isSuperset(of: milestones.map(\.seq)))
            #expect(socket.events.filter { $0.type == "degraded" }.count == 2)
            await socket.close()
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func aStalledSocketIsConflatedAndCatchesUp() async throws {
        try await LiveGateway.with { gateway in
            let job = try await gateway.submit("stalled")
            let socket = try await WebSocketClient.connect(port: gateway.port, receiveBuffer: 4096)
            try await socket.watch([job.text])
            _ = try await socket.next { $0.phase == "QUEUED" }
            try await socket.setReading(false)
            // Enough to fill both kernel buffers and then the gateway's.
            let lease = try await gateway.claim()
            var state = ProgressState(phase: .generating)
            state.message = String(repeating: "m", count: 500)
            let writes = 24_000
            for start in stride(from: 1, to: writes, by: 200) {
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for write in start..<start + 200 {
                        let state = state
                        tasks.addTask { _ = try await gateway.store.advance(lease, write: write, to: state) }
                    }
                    try await tasks.waitForAll()
                }
            }
            let conflated = gateway.registry.counter(
                "headway_gateway_dropped_total",
                help: "",
                labels: ["reason": "conflated"]
            )
            #expect(conflated.value > 100)
            try await socket.setReading(true)
            _ = try await gateway.store.finish(lease, as: .complete, resultJSON: "{}", stagesMs: [])
            _ = try await socket.next(within: .seconds(40)) { $0.isTerminal }
            let seqs = socket.events(of: job.text).compactMap(\.seq)
            #expect(zip(seqs, seqs.dropFirst()).allSatisfy { $0 < $1 })
            #expect(seqs.count < writes)
            await socket.close()
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func theCanaryKnowsWhetherEventsGetThrough() async throws {
        let redis = try await RedisServer.start()
        defer { redis.kill() }
        try await withHub(on: redis) { hub, _ in
            try await eventually { hub.isLinkHealthy }
            #expect(await hub.probe())
            #expect(await hub.probe())
            redis.freeze()
            #expect(await !hub.probe())
            redis.thaw()
            try await eventually(within: .seconds(15)) { await hub.probe() }
        }
    }
}
