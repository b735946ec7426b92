import Glibc

/// The 10 % and 90 % quantiles of what the estimates were off, in σ, for each eighth of a job. They move with every job so
/// that four of five intervals hold the truth, whatever the distribution (adaptive conformal inference).
public struct IntervalCalibration: Sendable, Hashable {
    public static let buckets = 8

    var low = [Double](repeating: -Tuning.firstQuantile, count: buckets)
    var high = [Double](repeating: Tuning.firstQuantile, count: buckets)

    /// The eighth in which `elapsed` of `elapsed + rest` lies.
    static func bucket(elapsed: Double, rest: Double) -> Int {
        guard elapsed > 0, elapsed + rest > 0 else { return 0 }
        return min(Int(Double(buckets) * elapsed / (elapsed + rest)), buckets - 1)
    }

    /// Where in its eighth a time is, 0…1.
    static func place(elapsed: Double, rest: Double, in bucket: Int) -> Double {
        guard elapsed > 0, elapsed + rest > 0 else { return 0 }
        return Double(buckets) * elapsed / (elapsed + rest) - Double(bucket)
    }

    /// Where in the eighths the estimates are made that a job is judged by. Those at their beginnings would not stand for the
    /// others: there it is often still open how a stage goes. The places of successive jobs are spread evenly (golden ratio).
    static func samplePlace(job: Int) -> Double { (0.618_033_988_749_895 * Double(job)).truncatingRemainder(dividingBy: 1) }

    func interval(_ seconds: Double, sigma: Double, bucket: Int) -> (low: Double, high: Double) {
        (
            seconds * min(1 - Tuning.leastWidth, exp(low[bucket] * sigma)),
            seconds * max(1 + Tuning.leastWidth, exp(high[bucket] * sigma))
        )
    }

    mutating func learn(_ deviations: [Double?]) {
        for (bucket, deviation) in deviations.enumerated().prefix(Self.buckets) {
            guard let deviation else { continue }
            low[bucket] += 2 * Tuning.calibrationGain * (0.1 - (deviation < low[bucket] ? 1 : 0))
            high[bucket] += 2 * Tuning.calibrationGain * (0.9 - (deviation < high[bucket] ? 1 : 0))
        }
    }

    /// The sixteen numbers, low ones first.
    var values: [Double] { low + high }

    init() {}

    init?(values: [Double]) {
        guard values.count == 2 * Self.buckets, values.allSatisfy({ abs($0) <= ProgressLimits.statisticsMagnitude }) else { return nil }
        low = Array(values.prefix(Self.buckets))
        high = Array(values.suffix(Self.buckets))
    }
}
