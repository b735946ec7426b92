import Glibc

/// A line of jobs before a few workers, played to its end, with a forecast of every wait at its submit: what the forecast is
/// worth. Seeded, so that a figure can be had again.
public struct WaitSimulation: Sendable {
    public struct Result: Sendable, Hashable {
        /// Median of |forecast − wait| / wait over the jobs that waited for more than 5 s.
        public var medianError: Double
        /// Share of waits inside their 80 % interval.
        public var coverage: Double
        public var jobs: Int
    }

    private let speeds: [Double]
    /// σ of the logarithm of true durations, and of what the plan says of them.
    private let spread: Double
    private let noise: Double
    private var random: UInt64

    /// - Parameters:
    ///   - isUnequal: workers differ by up to a factor of six.
    ///   - spread: σ of the logarithm of the jobs' sizes.
    ///   - noise: σ of the logarithm of a duration against its forecast.
    public init(workers: Int, isUnequal: Bool, spread: Double, noise: Double, seed: UInt64) {
        speeds = (0..<max(1, workers)).map { isUnequal ? 0.5 * exp(1.8 * Double($0) / Double(max(1, workers - 1))) : 1 }
        self.spread = spread
        self.noise = noise
        random = seed
    }

    private struct Job {
        var submitted: Double
        var size: Double
        var factor: Double
        var forecast: QueueForecast.Wait?
    }

    public func run(jobs count: Int) -> Result {
        var source = Source(state: random)
        // Ninety-five per cent busy on the mean, so that lines form.
        let rate = speeds.reduce(0) { $0 + 1 / $1 } / (30 * exp(spread * spread / 2)) * 0.95
        var calibration = WaitCalibration()
        var line: [Job] = []
        var free = speeds.map { _ in (at: 0.0, forecast: 0.0, begun: 0.0) }
        var now = 0.0
        var errors: [Double] = []
        var covered = 0
        for _ in 0..<count {
            now += -log(1 - source.uniform()) / rate
            start(&line, &free, until: now, &calibration, &errors, &covered)
            var job = Job(submitted: now, size: 30 * exp(spread * source.normal()), factor: exp(noise * source.normal()))
            let busy = free.indices.map { index in
                // What its own forecast leaves, or a share of how overdue it is.
                let rest = free[index].at <= now ? 0 : max(free[index].forecast - now, 0.2 * (now - free[index].begun) * noise)
                return QueueForecast.Busy(remainingMs: rest * 1000, variance: noise * noise, slowness: speeds[index])
            }
            let ahead = line.map { QueueForecast.Waiting(durationMs: $0.size * 1000, variance: noise * noise) }
            let own = QueueForecast.Waiting(durationMs: job.size * 1000, variance: noise * noise)
            let waits = QueueForecast.waits(workers: busy, line: ahead + [own], calibration: calibration)
            if waits.count == ahead.count + 1 { job.forecast = waits.last }
            line.append(job)
        }
        let sorted = errors.sorted()
        return Result(
            medianError: sorted.isEmpty ? 0 : sorted[sorted.count / 2],
            coverage: Double(covered) / Double(max(errors.count, 1)),
            jobs: errors.count
        )
    }

    /// Gives out every job that a worker can take before `until`.
    private func start(
        _ line: inout [Job],
        _ free: inout [(at: Double, forecast: Double, begun: Double)],
        until: Double,
        _ calibration: inout WaitCalibration,
        _ errors: inout [Double],
        _ covered: inout Int
    ) {
        while let job = line.first, let index = free.indices.min(by: { free[$0].at < free[$1].at }) {
            let begin = max(free[index].at, job.submitted)
            guard begin <= until else { return }
            line.removeFirst()
            free[index] = (begin + job.size * job.factor * speeds[index], begin + job.size * speeds[index], begin)
            let waited = begin - job.submitted
            guard waited > 5, let forecast = job.forecast else { continue }
            errors.append(abs(forecast.waitMs / 1000 - waited) / waited)
            covered += (forecast.lowMs...forecast.highMs).contains(waited * 1000) ? 1 : 0
            calibration.learn(forecast, actualMs: waited * 1000)
        }
    }

    /// SplitMix64 and Box–Muller.
    private struct Source {
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
