import JobStore
import Logging
import ProgressCore
import Synchronization
import Telemetry

/// Says how long the jobs of a queue wait: the forecast of whichever gateway has the turn, shared through Redis.
///
/// It works only when asked, so a gateway without waiting watchers does nothing. Whoever asks within a tick gets what is
/// known; one at a time makes it anew.
final class WaitForecaster: Sendable {
    /// What is remembered of one queue.
    private struct QueueState {
        var frame: WaitFrame?
        var framedAt: ContinuousClock.Instant?
        var askedAt: ContinuousClock.Instant?
        var isBusy = false
        var memory = Memory()
    }

    /// What the holder of the turn need not read again.
    private struct Memory {
        var facts: [JobID: WaitScene.Facts] = [:]
        /// What was said of a job when it was first seen, and when that was by Redis's clock.
        var told: [JobID: (wait: QueueForecast.Wait, atMs: Int)] = [:]
        /// By pipeline.
        var statistics: [String: (value: LearnedStatistics, readAt: ContinuousClock.Instant)] = [:]
    }

    private let store: JobStore
    private let pipelines: [String: Pipeline]
    private let holder: String
    private let limits: HubLimits
    private let passes: Counter
    private let failures: Counter
    private let logger: Logger
    private let queues = Mutex<[String: QueueState]>([:])

    /// - Parameter holder: names this gateway among the others.
    init(
        store: JobStore,
        pipelines: [Pipeline],
        holder: String,
        limits: HubLimits,
        registry: MetricsRegistry,
        logger: Logger
    ) {
        self.store = store
        self.pipelines = Dictionary(pipelines.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        self.holder = holder
        self.limits = limits
        self.logger = logger
        passes = registry.counter("headway_gateway_wait_forecasts_total", help: "Forecasts of a queue's waits made here")
        failures = registry.counter("headway_gateway_failed_wait_forecasts_total", help: "Forecasts of waits that failed")
    }

    /// The newest forecast, at most a few seconds old; nil when there is none.
    func frame(_ queue: String) async -> WaitFrame? {
        let now = ContinuousClock.now
        let (known, memory) = queues.withLock { queues -> (WaitFrame?, Memory?) in
            var state = queues[queue] ?? QueueState()
            let known = state.framedAt.flatMap { now - $0 < limits.waitFrameAge ? state.frame : nil }
            if state.isBusy || state.askedAt.map({ now - $0 < limits.waitPause }) ?? false { return (known, nil) }
            if queues[queue] == nil { Self.makeRoom(in: &queues, for: limits.waitQueues) }
            state.isBusy = true
            state.askedAt = now
            queues[queue] = state
            return (known, state.memory)
        }
        guard var memory else { return known }
        var frame = known
        var isFresh = false
        do {
            switch try await store.takeWaitTurn(queue: queue, by: holder) {
            case .theirs(let theirs):
                frame = theirs
                // Whoever has the turn remembers for all.
                memory = Memory()
            case .early(let own):
                frame = own
            case .mine(let calibration):
                frame = try await makeFrame(queue, calibration, &memory)
                passes.increment()
            }
            isFresh = true
        } catch {
            failures.increment()
            logger.debug("no forecast of waits", metadata: [LogKey.queueName: "\(queue)", LogKey.errorMessage: "\(error)"])
        }
        let result = (frame: frame, memory: memory, isFresh: isFresh)
        queues.withLock { queues in
            queues[queue]?.isBusy = false
            queues[queue]?.memory = result.memory
            if result.isFresh {
                queues[queue]?.frame = result.frame
                queues[queue]?.framedAt = .now
            }
        }
        return frame
    }

    private static func makeRoom(in queues: inout [String: QueueState], for limit: Int) {
        guard queues.count >= limit else { return }
        let idle = queues.filter { !$0.value.isBusy }
        guard let oldest = idle.min(by: { ($0.value.askedAt ?? .now) < ($1.value.askedAt ?? .now) })?.key else { return }
        queues[oldest] = nil
    }

    private func makeFrame(
        _ queue: String,
        _ calibration: WaitCalibration,
        _ memory: inout Memory
    ) async throws -> WaitFrame {
        let scene = try await store.waitScene(queue: queue, known: Set(memory.facts.keys), told: Set(memory.told.keys))
        let waiting = Set(scene.lines.flatMap { $0.jobs.map(\.job) })
        memory.facts = memory.facts.filter { waiting.contains($0.key) }
        memory.facts.merge(scene.facts) { _, new in new }
        var learned = calibration
        for (job, told) in memory.told where !waiting.contains(job) {
            if let begun = scene.begunAtMs[job], begun > told.atMs { learned.learn(told.wait, actualMs: Double(begun - told.atMs)) }
        }
        memory.told = memory.told.filter { waiting.contains($0.key) }
        let names = Set(memory.facts.values.map(\.pipeline)).union(scene.running.map(\.facts.pipeline))
        try await readStatistics(names, &memory)
        var pass = WaitPass(pipelines: pipelines, statistics: memory.statistics.mapValues(\.value), calibration: learned)
        let outcome = pass.forecast(scene, facts: memory.facts)
        // Short waits are decided by how quickly workers look, not by what was forecast.
        for (job, wait) in outcome.waits where memory.told[job] == nil && wait.waitMs >= limits.waitWorthLearning {
            memory.told[job] = (wait, scene.nowMs)
        }
        if scene.workers.isEmpty || scene.lines.contains(where: \.isPaused) { memory.told = [:] }
        try await store.putWaitFrame(outcome.frame, queue: queue, calibration: learned == calibration ? nil : learned)
        return outcome.frame
    }

    /// Reads what is not known or old; more pipelines than that are taken for unlearned.
    private func readStatistics(_ names: Set<String>, _ memory: inout Memory) async throws {
        memory.statistics = memory.statistics.filter { names.contains($0.key) }
        for name in names.sorted().prefix(limits.waitPipelines) {
            if let known = memory.statistics[name], .now - known.readAt < limits.waitStatisticsAge { continue }
            memory.statistics[name] = (try await store.statistics(pipeline: name), .now)
        }
    }
}
