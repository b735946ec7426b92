/// How the logarithms of a stage's durations lie around their prediction, and whether they lie in two heaps (a cache hit or
/// not, a model that has to be loaded or not) whose cause nobody declared.
enum ResidualHistogram {
    /// From -3 to 3 in steps of 1/8: heaps that a factor of two divides are six bins apart.
    static let bins = 48
    static let step = 0.125
    static let first = -3.0

    static func bin(of residual: Double) -> Int {
        Int(min(max((residual - first) / step, 0), Double(bins - 1)))
    }

    /// The two heaps when there are clearly two, nil otherwise.
    ///
    /// The split with the largest variance between its sides (Otsu 1979), accepted when both sides are common and their
    /// distance is large against the spread within them. An equal distribution reaches 3.5, a normal one 2.7, of the 5 needed.
    static func modes(_ counts: [Double]) -> StageModes? {
        var total = 0.0
        var sum = 0.0
        var squares = 0.0
        for (index, count) in counts.enumerated() {
            let x = centre(index)
            total += count
            sum += count * x
            squares += count * x * x
        }
        guard total >= Tuning.modeJobs else { return nil }
        var best = 0.0
        var split = (count: 0.0, sum: 0.0, squares: 0.0)
        var left = split
        for (index, count) in counts.enumerated().dropLast() {
            let x = centre(index)
            left.count += count
            left.sum += count * x
            left.squares += count * x * x
            let right = total - left.count
            guard left.count >= 1, right >= 1 else { continue }
            let distance = (sum - left.sum) / right - left.sum / left.count
            let between = left.count * right * distance * distance
            if between > best { (best, split) = (between, left) }
        }
        guard best > 0 else { return nil }
        let other = total - split.count
        let share = split.count / total
        let low = split.sum / split.count
        let high = (sum - split.sum) / other
        let lowVariance = max(0, split.squares / split.count - low * low)
        let highVariance = max(0, (squares - split.squares) / other - high * high)
        let within = (lowVariance * share + highVariance * (1 - share)).squareRoot()
        guard min(share, 1 - share) >= Tuning.modeShare, min(split.count, other) >= Tuning.modeCount,
            high - low >= max(Tuning.modeDistance, Tuning.modeSeparation * within)
        else { return nil }
        return StageModes(
            share: (split.count + 0.5) / (total + 1),
            low: LogNormal(mu: low, variance: widened(lowVariance, split.count)),
            high: LogNormal(mu: high, variance: widened(highVariance, other))
        )
    }

    private static func centre(_ bin: Int) -> Double { first + (Double(bin) + 0.5) * step }

    /// A variance estimated from few jobs, and for the next one.
    private static func widened(_ variance: Double, _ count: Double) -> Double {
        (variance * count + 2 * Tuning.modeVariance) / (count + 2) * (1 + 1 / (count + 1))
    }
}

/// Two ways a stage may go: offsets of the logarithm against the prediction, with their variances.
struct StageModes {
    /// Probability of `low`.
    var share: Double
    var low: LogNormal
    var high: LogNormal
}
