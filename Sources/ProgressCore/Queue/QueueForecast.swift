import Glibc

/// How long waiting jobs will wait, from what the workers are busy with and what is ahead of each.
///
/// One pass: the worker that becomes free first takes the next job and is busy for that job's expected duration. Jobs are
/// taken in their order in the line. O((jobs + workers) · log workers).
public struct QueueForecast: Sendable {
    /// What a worker still has to do.
    public struct Busy: Sendable, Hashable {
        /// Median of the remaining time of its job; 0 when it is idle.
        public var remainingMs: Double
        /// Variance of the logarithm of that.
        public var variance: Double
        /// Durations on this worker against the expected ones, e.g. 2 for one that is half as fast.
        public var slowness: Double

        public init(remainingMs: Double, variance: Double = 0.04, slowness: Double = 1) {
            self.remainingMs = remainingMs
            self.variance = variance
            self.slowness = slowness
        }
    }

    /// A job in the line.
    public struct Waiting: Sendable, Hashable {
        /// Median of its duration on a worker of slowness 1.
        public var durationMs: Double
        /// Variance of the logarithm of that.
        public var variance: Double

        public init(durationMs: Double, variance: Double = 0.04) {
            self.durationMs = durationMs
            self.variance = variance
        }
    }

    /// How long a job waits before it begins, with the bounds of its 80 % interval.
    public struct Wait: Sendable, Hashable {
        public var waitMs: Double
        public var lowMs: Double
        public var highMs: Double
        /// Of the logarithm, by the model alone: what calibration measures errors in.
        public var sigma: Double

        public init(waitMs: Double, lowMs: Double, highMs: Double, sigma: Double) {
            self.waitMs = waitMs
            self.lowMs = lowMs
            self.highMs = highMs
            self.sigma = sigma
        }

        /// The interval is too wide to show a number.
        public var isEstimating: Bool { sigma > Tuning.showableSpread }
    }

    /// The waits of the first jobs of the line, at most `ProgressLimits.forecastPositions`; none without a worker, since
    /// nobody knows when one comes.
    public static func waits(
        workers: [Busy],
        line: some Sequence<Waiting>,
        calibration: WaitCalibration = WaitCalibration()
    ) -> [Wait] {
        guard !workers.isEmpty else { return [] }
        var heap = FreeTimes(workers)
        var waits: [Wait] = []
        for job in line.prefix(ProgressLimits.forecastPositions) {
            let free = heap.first
            let sigma = free.variance > 0 && free.atMs > 0 ? (log1p(free.variance / (free.atMs * free.atMs))).squareRoot() : 0
            let spread = max(sigma, Tuning.leastWidth)
            waits.append(
                Wait(
                    waitMs: free.atMs,
                    lowMs: free.atMs * min(1, exp(calibration.low * spread)),
                    highMs: free.atMs * max(1, exp(calibration.high * spread)),
                    sigma: spread
                )
            )
            let variance = min(max(job.variance, 0), Tuning.largestVariance)
            // The mean, not the median: what many jobs take together is the sum of their means.
            let duration = bounded(job.durationMs * exp(variance / 2)) * free.slowness
            heap.replaceFirst(atMs: free.atMs + duration, variance: free.variance + duration * duration * expm1(variance))
        }
        return waits
    }

    private static func bounded(_ ms: Double) -> Double { ms.isFinite ? min(max(ms, 1), Double(ProgressLimits.durationMs)) : 1 }

    /// When each worker is free, the earliest first: a binary heap.
    private struct FreeTimes {
        struct Entry {
            var atMs: Double
            /// Of `atMs`, in ms².
            var variance: Double
            var slowness: Double
        }

        private var entries: [Entry]

        init(_ workers: [Busy]) {
            entries = workers.map { worker in
                let remaining = worker.remainingMs.isFinite ? min(max(worker.remainingMs, 0), Double(ProgressLimits.durationMs)) : 0
                let variance = min(max(worker.variance, 0), Tuning.largestVariance)
                let slowness = worker.slowness.isFinite ? min(max(worker.slowness, 0.01), 100) : 1
                return Entry(atMs: remaining, variance: remaining * remaining * expm1(variance), slowness: slowness)
            }
            entries.sort { $0.atMs < $1.atMs }
        }

        var first: Entry { entries[0] }

        mutating func replaceFirst(atMs: Double, variance: Double) {
            entries[0].atMs = atMs
            entries[0].variance = variance
            var index = 0
            while true {
                let left = 2 * index + 1
                guard left < entries.count else { return }
                let right = left + 1
                let least = right < entries.count && entries[right].atMs < entries[left].atMs ? right : left
                guard entries[least].atMs < entries[index].atMs else { return }
                entries.swapAt(index, least)
                index = least
            }
        }
    }
}

/// The 10 % and 90 % quantiles of what forecasts of waits were off, in σ, moved by every job that began to run.
public struct WaitCalibration: Sendable, Hashable {
    public private(set) var low = -1.3
    public private(set) var high = 1.3

    public init() {}

    /// `1 low high`
    public var text: String { "1 \(low) \(high)" }

    /// What `text` said; nil for anything else.
    public init?(text: String) {
        let parts = text.split(separator: " ")
        guard parts.count == 3, parts[0] == "1", let low = Double(parts[1]), let high = Double(parts[2]),
            (-20 ... -0.1).contains(low), (0.1...20).contains(high)
        else { return nil }
        self.low = low
        self.high = high
    }

    /// - Parameters:
    ///   - forecast: what was said when the job was submitted.
    ///   - actualMs: how long it then waited.
    public mutating func learn(_ forecast: QueueForecast.Wait, actualMs: Double) {
        guard forecast.waitMs > 0, actualMs > 0, forecast.sigma > 0, actualMs.isFinite else { return }
        let deviation = log(actualMs / forecast.waitMs) / forecast.sigma
        low = min(max(low + 0.1 * (0.1 - (deviation < low ? 1 : 0)), -20), -0.1)
        high = min(max(high + 0.1 * (0.9 - (deviation < high ? 1 : 0)), 0.1), 20)
    }
}
