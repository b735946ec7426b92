import JobStore
import Logging
import ProgressCore
import RedisLink
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// Forecasts on a real Redis, made by one gateway and read by another.
@Suite(.serialized, .timeLimit(.minutes(5))) struct WaitForecasterTests {
    private func forecaster(_ live: LiveGateway, _ holder: String, registry: MetricsRegistry = MetricsRegistry()) -> WaitForecaster {
        var limits = HubLimits()
        limits.waitPause = .zero
        limits.waitWorthLearning = 0
        return WaitForecaster(
            store: live.store,
            pipelines: [Pipeline(name: "relief", stages: [.init(name: "x", phase: .generating, weight: 1, expectedMs: 60_000)])],
            holder: holder,
            limits: limits,
            registry: registry,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        )
    }

    private func register(_ live: LiveGateway) async throws {
        _ = try await live.store.registerWorker(
            WorkerRecord(id: "w", host: "h", pid: 1, version: "1", queues: ["gpu"], pipeline: "relief", concurrency: 1)
        )
    }

    @Test func twoGatewaysShareOneForecast() async throws {
        try await LiveGateway.with { live in
            for name in ["a", "b"] { _ = try await live.submit(name) }
            let (one, two) = (forecaster(live, "one"), forecaster(live, "two"))
            #expect(await one.frame("gpu") == WaitFrame(lines: [.init(reason: .noWorker)]))
            #expect(await two.frame("gpu") == WaitFrame(lines: [.init(reason: .noWorker)]), "the other's")
            try await register(live)
            let lease = try await live.claim()
            var state = ProgressState(phase: .generating, percent: 1)
            (state.etaMs, state.etaLowMs, state.etaHighMs) = (600_000, 500_000, 700_000)
            _ = try await live.store.advance(lease, write: 1, to: state)
            // A tick later, whoever has the turn.
            let frame = try await eventually(
                within: .seconds(60),
                "a wait",
                produce: {
                    let frames = [await one.frame("gpu"), await two.frame("gpu")].compactMap(\.self)
                    return frames.first { $0.lines.first?.places.count == 1 }
                }
            )
            guard case .wait(let ms, let low, let high)? = frame.lines[0].places.first else {
                Issue.record("\(frame)")
                return
            }
            #expect(ms > 100_000 && low <= ms && ms <= high, "\(frame)")
        }
    }

    @Test func jobsThatBeginTeachTheInterval() async throws {
        try await LiveGateway.with { live in
            try await register(live)
            for name in ["a", "b"] { _ = try await live.submit(name) }
            let first = try await live.claim()
            let one = forecaster(live, "one")
            // What is said of b, then b begins, which was not to be expected so soon.
            try await eventually(within: .seconds(60), "a forecast") { await one.frame("gpu")?.lines.first?.places.count == 1 }
            _ = try await live.store.finish(first, as: .complete, resultJSON: nil, stagesMs: [])
            _ = try await live.claim()
            try await eventually(within: .seconds(60), "a lesson") {
                _ = await one.frame("gpu")
                return try await live.redis.cli("GET", "headway:{wait:gpu}:calibration").hasPrefix("1 ")
            }
        }
    }

    /// Losing all of it costs nothing but a tick.
    @Test func nothingBreaksWhenItIsLostOrDamaged() async throws {
        try await LiveGateway.with { live in
            try await register(live)
            for name in ["a", "b"] { _ = try await live.submit(name) }
            let one = forecaster(live, "one")
            for (command, key, field) in [("HSET", "frame", ["frame"]), ("SET", "calibration", [])] {
                _ = try await live.store.redis.send(
                    [.string(command), .string("headway:{wait:gpu}:\(key)")] + field.map { .string($0) } + ["rubbish"]
                )
                try await eventually(within: .seconds(60), "a forecast") { await one.frame("gpu")?.lines.first?.places.count == 2 }
            }
            _ = try await live.redis.cli("FLUSHALL")
            try await eventually(within: .seconds(60), "an empty line") {
                await one.frame("gpu") == WaitFrame(lines: [.init(reason: .noWorker)])
            }
        }
    }

    @Test func nobodyWaitingMeansNoWork() async throws {
        try await LiveGateway.with { live in
            try await register(live)
            let socket = try await WebSocketClient.connect(port: live.port, within: .seconds(30))
            _ = try await live.submit("a")
            let lease = try await live.claim()
            _ = try await live.store.advance(lease, write: 1, to: ProgressState(phase: .generating, percent: 1))
            _ = try await socket.watch(["a"], within: .seconds(30))
            // Something that takes a while and has nothing to do with a line.
            for _ in 0..<3 { _ = try await live.store.workers() }
            #expect(try await live.redis.cli("EXISTS", "headway:{wait:gpu}:frame") == "0")
            _ = try await live.submit("b")
            _ = try await socket.watch(["b"], within: .seconds(30))
            try await eventually(within: .seconds(60), "a forecast for who waits") {
                try await live.redis.cli("EXISTS", "headway:{wait:gpu}:frame") == "1"
            }
        }
    }
}
