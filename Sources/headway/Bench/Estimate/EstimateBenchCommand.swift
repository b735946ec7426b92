import ArgumentParser
import ProgressCore

#if canImport(Glibc)
    import Glibc
#endif

/// `headway bench estimate`
struct EstimateBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "estimate",
        abstract: "Measure what progress costs: processor time and allocations of one tick and one estimate.",
        discussion: """
            Jobs of eight stages with learned statistics; processor time of this thread, median of the rounds. Allocations are counted \
            when the program runs under scripts/count-allocations.sh.
            """
    )

    @Option(help: "Rounds, 1…100.") var rounds = 7
    @Option(help: "Ticks of a round, 1000…10000000.") var ticks = 200_000
    @Flag(help: "JSON instead of a table.") var json = false

    func validate() throws {
        guard (1...100).contains(rounds), (1000...10_000_000).contains(ticks) else { throw ValidationError("a value is out of its range") }
    }

    func run() async throws {
        var figures = Figures()
        let bench = EstimateBench(ticks: ticks)
        for _ in 0..<rounds { bench.round(&figures) }
        try figures.report(json: json)
    }
}

/// One job of eight stages, ticked over and over.
struct EstimateBench {
    let ticks: Int
    private let pipeline: Pipeline
    private let statistics: LearnedStatistics
    private let hints = JobHints(worker: "bench", jobClass: "a", isCold: false)

    private static let stages = 8

    init(ticks: Int) {
        self.ticks = ticks
        pipeline = Pipeline(
            name: "bench",
            stages: (0..<Self.stages).map {
                .init(name: "stage\($0)", phase: .generating, weight: 1 / Double(Self.stages), expectedMs: 1000)
            }
        )
        var statistics = LearnedStatistics()
        // Some last much longer than others of their kind: estimates with two modes are the costly ones.
        for job in 0..<40 {
            var tracker = ProgressTracker(pipeline: pipeline, statistics: statistics, hints: hints, startedAtMs: 0)
            var now = 0
            for stage in 0..<Self.stages {
                for step in 1...20 {
                    tracker.apply(ProgressUpdate(stage: "stage\(stage)", step: step, steps: 20), atMs: now)
                    now += 40 + (job * 7 + stage * 3 + step) % 20 + (stage > 5 && job % 2 == 0 ? 120 : 0)
                }
            }
            statistics.learn(tracker.finish(atMs: now))
        }
        self.statistics = statistics
    }

    func round(_ figures: inout Figures) {
        let start = measure(ticks / 200) { _ in
            _ = ProgressTracker(pipeline: pipeline, statistics: statistics, hints: hints, startedAtMs: 0)
        }
        figures.add("start of a job: forecasts of eight stages", start.microseconds, "µs")
        if start.allocations.isFinite { figures.add("start of a job: allocations", start.allocations, "") }

        var tracker = ProgressTracker(pipeline: pipeline, statistics: statistics, hints: hints, startedAtMs: 0)
        // In the first stage, so that all others are still to come.
        var update = ProgressUpdate(stage: "stage0", step: 1, steps: ticks + 10)
        tracker.apply(update, atMs: 0)
        update.stage = nil
        let tick = measure(ticks) { index in
            update.step = index + 2
            tracker.apply(update, atMs: index + 1)
        }
        figures.add("tick", tick.microseconds, "µs")
        if tick.allocations.isFinite { figures.add("tick: allocations", tick.allocations, "", .atMost(0)) }
        var sum = 0.0
        var now = ticks + 1
        let estimate = measure(ticks) { index in
            now += 1
            let state = tracker.state(atMs: now)
            sum += Double(state.etaMs ?? 0)
            tracker.published(state, atMs: now)
        }
        figures.add("estimate and state, eight stages", estimate.microseconds, "µs", .atMost(2))
        if estimate.allocations.isFinite { figures.add("estimate and state: allocations", estimate.allocations, "", .atMost(0)) }
        precondition(sum > 0, "the work must not be optimised away")

        let line = (0..<1000).map { QueueForecast.Waiting(durationMs: Double(1000 + $0), variance: 0.05) }
        let workers = (0..<12).map { QueueForecast.Busy(remainingMs: Double($0) * 300, slowness: 1 + Double($0) / 10) }
        let pass = measure(max(10, ticks / 2000)) { _ in sum += QueueForecast.waits(workers: workers, line: line).last?.waitMs ?? 0 }
        figures.add("forecast of 1000 waits, 12 workers", pass.microseconds, "µs")
    }

    private func measure(_ count: Int, _ body: (Int) -> Void) -> (microseconds: Double, allocations: Double) {
        body(0)
        let allocated = AllocationCount.now()
        let start = Self.processorNanoseconds()
        for index in 1...count { body(index) }
        let spent = Self.processorNanoseconds() - start
        let after = AllocationCount.now()
        let allocations = allocated.flatMap { before in after.map { Double($0 - before) / Double(count) } }
        return (Double(spent) / 1000 / Double(count), allocations ?? .nan)
    }

    private static func processorNanoseconds() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}

/// How often memory was allocated so far, when a library that counts was preloaded.
enum AllocationCount {
    private typealias Counter = @convention(c) () -> Int

    static func now() -> Int? {
        guard let symbol = dlsym(UnsafeMutableRawPointer(bitPattern: 0), "headway_allocations") else { return nil }
        // Safety: the library of scripts/count_allocations.c is the only one with this name, and it takes nothing and returns a long.
        return unsafeBitCast(symbol, to: Counter.self)()
    }
}
