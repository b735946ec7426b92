import Glibc

/// A line of jobs before a few workers, played from nothing to its end by the shipped code: every job is tracked and teaches,
/// every wait is forecast at its submit from what was learned and from what the running jobs tell. Seeded, so that a figure
/// can be had again.
public struct WaitSimulation: Sendable {
    /// One of the situations that a forecast has to hold in.
    public struct Scenario: Sendable, Hashable {
        public var name: String
        public var workers: Int
        /// Workers differ by a factor of six, which nobody declares.
        public var isUnequal: Bool
        /// σ of the logarithm of the jobs' sizes, which their plans tell.
        public var spread: Double
        /// σ of the logarithm of a duration against what size and worker make of it, which nobody can know before.
        public var noise: Double
        /// Work that comes, as a share of what the workers can do.
        public var load: Double

        public init(name: String, workers: Int, isUnequal: Bool, spread: Double, noise: Double, load: Double = 0.95) {
            self.name = name
            self.workers = max(1, workers)
            self.isUnequal = isUnequal
            self.spread = spread
            self.noise = noise
            self.load = load
        }

        /// The four that the method was chosen by.
        public static let all = [
            Scenario(name: "4 equal", workers: 4, isUnequal: false, spread: 0.3, noise: 0.1),
            Scenario(name: "5 unequal", workers: 5, isUnequal: true, spread: 0.7, noise: 0.25),
            Scenario(name: "2 unequal", workers: 2, isUnequal: true, spread: 1.0, noise: 0.25),
            Scenario(name: "12 unequal", workers: 12, isUnequal: true, spread: 0.7, noise: 0.25),
        ]
    }

    public struct Result: Sendable, Hashable {
        /// Median of |forecast − wait| / wait over the jobs that waited for more than 5 s.
        public var medianError = 0.0
        /// Mean of |forecast − wait| over the mean wait.
        public var meanError = 0.0
        /// Share of waits inside their 80 % interval.
        public var coverage = 0.0
        /// Mean of forecast − wait over the mean wait.
        public var bias = 0.0
        public var jobs = 0
        public var meanWaitSeconds = 0.0
    }

    private struct Job {
        var submitted: Double
        var size: Double
        var forecast: QueueForecast.Wait?
        var expected: QueueForecast.Waiting
    }

    private struct Worker {
        var name: String
        var speed: Double
        /// When its job ends, and what has been told of it.
        var free = 0.0
        var begun = 0.0
        var tracker: ProgressTracker?
        /// When the job's ticks come, the next last.
        var ticks: [Double] = []
    }

    private let scenario: Scenario
    private var source: Source
    private var workers: [Worker]
    private var line: [Job] = []
    private var now = 0.0
    private var statistics = LearnedStatistics()
    private var calibration = WaitCalibration()
    private var errors: [Double] = []
    private var misses = 0.0
    private var excess = 0.0
    private var waited = 0.0
    private var covered = 0

    private static let pipeline = Pipeline(name: "simulated", stages: [])
    /// Seconds of a job of size 1 on a worker of speed 1.
    private static let seconds = 30.0
    private static let steps = 20

    public init(_ scenario: Scenario, seed: UInt64) {
        self.scenario = scenario
        source = Source(state: seed)
        workers = (0..<scenario.workers).map { index in
            let place = Double(index) / Double(max(1, scenario.workers - 1))
            return Worker(name: "w\(index)", speed: scenario.isUnequal ? 0.5 * exp(1.8 * place) : 1)
        }
    }

    /// - Parameters:
    ///   - count: of jobs.
    ///   - unscored: of them, at the beginning, while nothing is known.
    public mutating func run(jobs count: Int, unscored: Int = 200) -> Result {
        let work = Self.seconds * exp(scenario.spread * scenario.spread / 2)
        let rate = workers.reduce(0) { $0 + 1 / $1.speed } / work * scenario.load
        for number in 0..<count {
            let next = now - log(1 - source.uniform()) / rate
            play(until: next, isScored: number >= unscored)
            now = next
            submit()
        }
        return result
    }

    private var result: Result {
        guard !errors.isEmpty else { return Result() }
        let sorted = errors.sorted()
        return Result(
            medianError: sorted[sorted.count / 2],
            meanError: misses / waited,
            coverage: Double(covered) / Double(errors.count),
            bias: excess / waited,
            jobs: errors.count,
            meanWaitSeconds: waited / Double(errors.count)
        )
    }

    private mutating func submit() {
        let size = exp(scenario.spread * source.normal())
        var job = Job(
            submitted: now,
            size: size,
            expected: QueueForecast.Waiting(pipeline: Self.pipeline, plan: plan(size), statistics: statistics)
        )
        let busy = workers.indices.map { slot($0) }
        let waits = QueueForecast.waits(workers: busy, line: line.map(\.expected) + [job.expected], calibration: calibration)
        if waits.count == line.count + 1 { job.forecast = waits.last }
        line.append(job)
    }

    private func plan(_ size: Double) -> [PlannedStage] {
        [PlannedStage(name: "make", units: Double(Self.steps), work: size)]
    }

    /// What the worker's job tells now.
    private mutating func slot(_ index: Int) -> QueueForecast.Busy {
        let slowness = statistics.slowness(of: workers[index].name)
        hear(index, until: now)
        guard workers[index].free > now, let state = workers[index].tracker?.state(atMs: Self.ms(now)) else {
            return QueueForecast.Busy(remainingMs: 0, slowness: slowness)
        }
        let eta = Double(state.etaMs ?? 0)
        return QueueForecast.Busy(
            etaMs: eta,
            lowMs: Double(state.etaLowMs ?? 0),
            highMs: Double(state.etaHighMs ?? 0),
            ageMs: 0,
            elapsedMs: (now - workers[index].begun) * 1000,
            slowness: slowness
        )
    }

    private mutating func hear(_ index: Int, until time: Double) {
        while let tick = workers[index].ticks.last, tick <= time {
            workers[index].ticks.removeLast()
            let step = Self.steps - workers[index].ticks.count
            workers[index].tracker?.apply(ProgressUpdate(stage: "make", step: step, steps: Self.steps), atMs: Self.ms(tick))
        }
    }

    private static func ms(_ seconds: Double) -> Int { Int((seconds * 1000).rounded()) }

    /// Gives out every job that a worker can take before `until`, the first free worker first.
    private mutating func play(until: Double, isScored: Bool) {
        while let index = workers.indices.min(by: { workers[$0].free < workers[$1].free }) {
            if workers[index].tracker != nil, workers[index].free <= until { finish(index) }
            guard let job = line.first else {
                // Others may have ended as well.
                for other in workers.indices where workers[other].tracker != nil && workers[other].free <= until { finish(other) }
                return
            }
            let begin = max(workers[index].free, job.submitted)
            guard begin <= until else { return }
            line.removeFirst()
            start(job, on: index, at: begin)
            if isScored { score(job, waited: begin - job.submitted) }
        }
    }

    private mutating func start(_ job: Job, on index: Int, at begin: Double) {
        let duration = Self.seconds * job.size * workers[index].speed * exp(scenario.noise * source.normal())
        var tracker = ProgressTracker(
            pipeline: Self.pipeline,
            plan: plan(job.size),
            statistics: statistics,
            hints: JobHints(worker: workers[index].name),
            startedAtMs: Self.ms(begin)
        )
        tracker.apply(ProgressUpdate(stage: "make"), atMs: Self.ms(begin))
        workers[index].tracker = tracker
        workers[index].free = begin + duration
        workers[index].begun = begin
        // Steps of a job are not all alike.
        var shares = (0..<Self.steps).map { _ in exp(0.2 * source.normal()) }
        let sum = shares.reduce(0, +)
        var passed = 0.0
        for step in shares.indices {
            passed += shares[step]
            shares[step] = begin + duration * passed / sum
        }
        workers[index].ticks = shares.reversed()
    }

    private mutating func finish(_ index: Int) {
        hear(index, until: workers[index].free)
        let end = Self.ms(workers[index].free)
        if let lesson = workers[index].tracker?.finish(atMs: end) { statistics.learn(lesson) }
        workers[index].tracker = nil
    }

    private mutating func score(_ job: Job, waited seconds: Double) {
        guard seconds > 5, let forecast = job.forecast else { return }
        errors.append(abs(forecast.waitMs / 1000 - seconds) / seconds)
        misses += abs(forecast.waitMs / 1000 - seconds)
        excess += forecast.waitMs / 1000 - seconds
        waited += seconds
        covered += (forecast.lowMs...forecast.highMs).contains(seconds * 1000) ? 1 : 0
        calibration.learn(forecast, actualMs: seconds * 1000)
    }

    /// SplitMix64 and Box–Muller.
    private struct Source: Sendable {
        var state: UInt64

        mutating func uniform() -> Double {
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return Double((mixed ^ (mixed >> 31)) >> 11) / 9_007_199_254_740_992
        }

        mutating func normal() -> Double { (-2 * log(1 - uniform())).squareRoot() * cos(6.283_185_307_179_586 * uniform()) }
    }
}
