import Glibc

/// What can be said of the rest of a job.
public struct ProgressEstimate: Sendable, Hashable {
    /// The remaining time, and its 80 % interval.
    public var remainingMs = 0.0
    public var lowMs = 0.0
    public var highMs = 0.0
    /// Of the phase that was asked for.
    public var phaseRemainingMs = 0.0
    /// The interval is too wide to show a number.
    public var isEstimating = true
    /// No tick for much longer than usual, or a stage that should have ended long ago.
    public var isStalled = false
    /// What the bar follows, in seconds.
    var barRest = 0.0
}

/// Judges how long the rest of a job will take, from what earlier jobs of its pipeline took and from what this one shows.
///
/// Each stage is predicted with its uncertainty (`StageForecast`). While it runs, its ticks are a second opinion, weighted by
/// precision; stages that ended move all later ones (`JobFactor`). The sum of the rest is taken as log-normal, its interval
/// is calibrated on earlier jobs. The method is explained in docs/estimator.md.
///
/// A pure value: time comes in as an argument, in seconds of any clock that does not go back. An estimate is linear in the
/// stages; neither it nor a tick allocates.
public struct LearnedEstimator: Sendable {
    var hints: JobHints
    let statistics: LearnedStatistics
    let startedAt: Double
    var factor = JobFactor(variance: Tuning.jobVariance)
    /// The first is what passes before any stage begins; the job's own follow.
    var stages: [RunningStage] = []
    /// Stages that nobody listed may follow.
    public var expectsUnlisted = false

    /// Index into `stages`; nil once something runs that is not listed.
    private(set) var current: Int? = 0
    /// When the current stage began (its failed tries and the time in other stages taken out), and its last tick or entry.
    private var beganAt: Double
    private var tickedAt: Double
    private var stall = 0.0
    private var record = TickRecord()
    /// Sum of all forecasts, in seconds.
    private var planned = 0.0
    private let workerFactor: Double
    /// One estimate of each eighth of the job: when, how much, and its σ; and where in its eighth it is made.
    private(set) var samples = [SampledEstimate?](repeating: nil, count: IntervalCalibration.buckets)
    private let sampleAt: Double
    private var shown: (seconds: Double, at: Double)?

    struct SampledEstimate: Sendable {
        var elapsed: Double
        var rest: Double
        var sigma: Double
    }

    /// The name of what passes before the first stage; no stage can have it.
    static let startName = "~start"

    public init(statistics: LearnedStatistics, hints: JobHints, startedAt: Double) {
        self.statistics = statistics
        self.hints = hints
        self.startedAt = startedAt
        beganAt = startedAt
        tickedAt = startedAt
        workerFactor = statistics.workerFactor(hints.worker)
        sampleAt = IntervalCalibration.samplePlace(job: statistics.jobs)
        stages = [make(StageOutline(name: Self.startName, declaredMs: 200))]
    }

    private func make(_ outline: StageOutline) -> RunningStage {
        RunningStage(outline, hints: hints, statistics: statistics, workerFactor: workerFactor, factor: factor)
    }

    // MARK: Stages

    /// Replaces the list of stages. Those in `kept` (new index ← old index) keep what was seen of them.
    public mutating func list(_ outlines: [StageOutline], keeping kept: [Int: Int] = [:]) {
        var list = [stages[0]]
        for (index, outline) in outlines.enumerated() {
            var stage = make(outline)
            if let old = kept[index], stages.indices.contains(old + 1) {
                stage.take(from: stages[old + 1], hints: hints, statistics: statistics, factor: factor)
            }
            list.append(stage)
        }
        if let running = current, running > 0 { current = kept.first { $0.value + 1 == running }.map { $0.key + 1 } }
        stages = list
        let jobs = stages.dropFirst().reduce(0) { $0 + $1.forecast.weight }
        let isCold = jobs < Tuning.trustedJobs * Double(stages.count - 1)
        planned = stages.reduce(0) { $0 + exp($1.mu) }
        // A job is as variable as its stages have shared so far, the longer ones first; each feels it as much as it shared.
        let shared = stages.reduce(0) { $0 + exp($1.mu) * $1.forecast.common } / planned
        let common = min(max(shared, Tuning.jobVariances.lowerBound), Tuning.jobVariances.upperBound)
        if factor.isUntouched { factor = JobFactor(variance: isCold ? Tuning.coldJobVariance : common) }
        for index in stages.indices {
            let loading = isCold ? 1 : min(stages[index].forecast.common / common, Tuning.largestLoading)
            stages[index].update(factor: factor, loading: loading)
        }
    }

    /// One more stage behind all others.
    public mutating func append(_ outline: StageOutline) {
        stages.append(make(outline))
        planned += exp(stages[stages.count - 1].mu)
    }

    /// Begins the stage `index`, or one that is not listed (nil); the one before must have been left.
    ///
    /// - Parameter sinceStart: it has been running since the job began, it just was not named.
    public mutating func enter(_ index: Int?, at now: Double, sinceStart: Bool = false) {
        stall = 0
        tickedAt = now
        beganAt = sinceStart ? startedAt : now
        record.reset()
        stages[0].isDone = true
        guard let index else {
            current = nil
            return
        }
        let slot = index + 1
        current = slot
        if stages[slot].isDone || stages[slot].duration != nil {
            // Once more from its beginning.
            stages[slot].restart()
        } else {
            beganAt -= stages[slot].spent
        }
        stages[slot].isDone = false
    }

    /// Leaves the current stage.
    ///
    /// - Parameter share: how much of it is done, 1 when it has ended; nil: as much as its ticks say.
    public mutating func leave(at now: Double, share: Double?) {
        guard let slot = current else { return }
        current = nil
        let spent = max(now - beganAt - stall, 1e-3)
        guard share ?? 0 >= 1 || slot == 0 else {
            stages[slot].spent = spent
            stages[slot].wasLeft = true
            if let share, share > stages[slot].share {
                stages[slot].share = share
                stages[slot].tickTime = spent
            }
            return
        }
        end(slot, after: spent)
    }

    private mutating func end(_ slot: Int, after spent: Double) {
        stages[slot].isDone = true
        stages[slot].duration = spent
        if !stages[slot].wasLeft, record.count > 0 {
            stages[slot].curve = record.shares(duration: spent)
            stages[slot].rateErrors = record.errors(of: stages[slot].forecast.curve, duration: spent)
        }
        guard slot > 0 else { return }
        let (residual, variance) = stages[slot].residual(ofLog: log(spent))
        let loading = stages[slot].loading
        factor.observe(residual, loading: loading, weight: spent / (spent + Tuning.shortStage * planned) / factor.own(variance, loading))
    }

    /// The stages `range` are over, or will not run.
    public mutating func skip(_ range: Range<Int>) {
        for index in range where index + 1 != current { stages[index + 1].isDone = true }
    }

    /// So much of the stage is done, whoever did it.
    public mutating func setShare(_ share: Double, of index: Int) {
        guard index + 1 != current, share > stages[index + 1].share else { return }
        stages[index + 1].share = share
        stages[index + 1].tickTime = max(stages[index + 1].tickTime, stages[index + 1].spent)
    }

    // MARK: Ticks

    /// The current stage has done `share` of its ticks.
    ///
    /// - Parameters:
    ///   - size: of one tick, as a share of the stage.
    ///   - units: how many there are, when they are counted.
    public mutating func tick(share: Double, size: Double, units: Double?, at now: Double) {
        guard let slot = current, slot > 0, share.isFinite, size.isFinite else { return }
        if let units, units != stages[slot].outline.units, units >= 1 {
            stages[slot].setUnits(units, hints: hints, statistics: statistics, factor: factor)
        }
        let known = stages[slot].share
        if share < known - 1e-9 {
            // Back to its beginning is another try; anything else comes late and says nothing.
            guard share <= 1.5 * size || share < 0.5 * known else { return }
            stages[slot].restart()
            stages[slot].share = share
            (beganAt, tickedAt, stall) = (now, now, 0)
            record.reset()
            return
        }
        guard share > known + 1e-12 else { return }
        if stages[slot].ticks >= 2 {
            let curve = stages[slot].forecast.curve
            let expected = stages[slot].tickTime * (curve.time(at: share) / curve.time(at: known) - 1)
            let gap = now - tickedAt
            if gap > Tuning.stallFactor * expected + Tuning.stallSlack { stall += gap - expected }
        }
        tickedAt = now
        stages[slot].ticks += 1
        stages[slot].share = min(share, 1)
        stages[slot].tickSize = size
        stages[slot].tickTime = max(now - beganAt - stall, 0)
        record.note(share: stages[slot].share, time: stages[slot].tickTime)
    }

    // MARK: Estimate

    /// - Parameter phase: whose rest is wanted as well.
    public mutating func estimate(at now: Double, phase: Phase? = nil) -> ProgressEstimate {
        var sum = RestSum()
        var result = ProgressEstimate()
        let shared = factor.estimate
        // The ticks of the current stage say something of the later ones, too.
        var ahead = shared
        if let slot = current, slot > 0, let rate = stages[slot].rate {
            let (residual, variance) = stages[slot].residual(ofLog: rate.log)
            let time = max(stages[slot].tickTime, 1e-3)
            let loading = stages[slot].loading
            let precision = 1 / (factor.own(variance, loading) + rate.variance)
            var seen = factor
            seen.observe(residual, loading: loading, weight: time / (time + Tuning.shortStage * planned) * precision)
            ahead = seen.estimate
        }
        var phaseRest = 0.0
        let elapsed = max(0, now - startedAt)
        if stages.count == 1 {
            // Nobody said what it is going to do.
            let rest = LogNormal(mu: log(Tuning.undeclaredSeconds), variance: Tuning.undeclaredSpread * Tuning.undeclaredSpread)
                .remaining(after: elapsed)
            sum.add(rest)
            phaseRest = rest.seconds
        } else {
            for slot in stages.indices where !stages[slot].isDone {
                let before = sum.mean
                if slot == current {
                    result.isStalled = addCurrent(slot, to: &sum, now: now, shared: shared)
                } else if stages[slot].share > 0 {
                    addPartial(slot, to: &sum, shared: shared)
                } else if slot > 0 {
                    sum.addLater(stages[slot].ahead, scale: exp(stages[slot].loading * ahead.mean))
                }
                if stages[slot].outline.phase == phase { phaseRest += sum.mean - before }
            }
            if expectsUnlisted {
                let rest = Tuning.unlistedShare * (elapsed + sum.mean)
                sum.add(Remaining(seconds: rest, variance: 4 * rest * rest))
            }
        }
        let total = sum.distribution(sharedVariance: ahead.variance, elapsed: elapsed)
        result.phaseRemainingMs = phaseRest * 1000
        show(total, elapsed: elapsed, in: &result)
        return result
    }

    /// True when it stalls.
    private func addCurrent(_ slot: Int, to sum: inout RestSum, now: Double, shared: (mean: Double, variance: Double)) -> Bool {
        let stage = stages[slot]
        let elapsed = max(now - beganAt - stall, 0)
        let duration = stage.duration(factor, shared)
        if stage.share > 0, stage.share < 1 {
            let seconds = exp(duration.mu)
            let passed = stage.forecast.curve.time(at: stage.share)
            let next = stage.forecast.curve.time(at: min(1, stage.share + stage.tickSize))
            let gap = seconds * (next - passed)
            let quiet = now - tickedAt
            // Never below what is left after the next tick, which is due but not here; when it is late, a share of its lateness.
            let late = max(0, quiet - Tuning.lateFactor * gap - Tuning.lateSlack)
            let rest = max(seconds - elapsed, seconds * (1 - next) + Tuning.pendingShare * gap) + Tuning.overdueShare * late
            let lateness = 0.5 * max(0, quiet - gap)
            sum.add(Remaining(seconds: rest, variance: seconds * seconds * expm1(duration.variance) + lateness * lateness))
            return stage.ticks > 1 && quiet > Tuning.stallFactor * gap + 2
        }
        if let modes = stage.forecast.modes, stage.share == 0 {
            let common = stage.loading * stage.loading * shared.variance
            let low = LogNormal(mu: duration.mu + modes.low.mu, variance: factor.own(modes.low.variance, stage.loading) + common)
            let high = LogNormal(mu: duration.mu + modes.high.mu, variance: factor.own(modes.high.variance, stage.loading) + common)
            let alive = (modes.share * low.survival(elapsed), (1 - modes.share) * high.survival(elapsed))
            let share = alive.0 + alive.1 > 1e-12 ? alive.0 / (alive.0 + alive.1) : 0
            sum.addEither(share, low.remaining(after: elapsed), high.remaining(after: elapsed))
            return elapsed > 10 && log(elapsed) > high.mu + 3 * high.variance.squareRoot()
        }
        sum.add(duration.remaining(after: elapsed))
        return elapsed > 10 && log(elapsed) > duration.mu + 3 * duration.variance.squareRoot()
    }

    private func addPartial(_ slot: Int, to sum: inout RestSum, shared: (mean: Double, variance: Double)) {
        let duration = stages[slot].duration(factor, shared)
        let rest = exp(duration.mu) * (1 - stages[slot].forecast.curve.time(at: stages[slot].share))
        sum.add(Remaining(seconds: max(rest, 0), variance: rest * rest * expm1(duration.variance)))
    }

    private mutating func show(_ total: RestSum.Distribution, elapsed: Double, in result: inout ProgressEstimate) {
        var rest = total.estimate
        if let shown, elapsed > shown.at, shown.seconds > 0 {
            let passed = (elapsed - shown.at) / (elapsed + shown.seconds)
            rest = min(rest, shown.seconds * exp(min(Tuning.riseRate * passed, 50)))
        }
        if elapsed > 0 { shown = (rest, elapsed) }
        let bucket = IntervalCalibration.bucket(elapsed: elapsed, rest: rest)
        if samples[bucket] == nil, IntervalCalibration.place(elapsed: elapsed, rest: rest, in: bucket) >= sampleAt {
            samples[bucket] = SampledEstimate(elapsed: elapsed, rest: rest, sigma: total.sigma)
        }
        let interval = statistics.calibration.interval(rest, sigma: total.sigma, bucket: bucket)
        let longest = Double(ProgressLimits.durationMs)
        result.remainingMs = min(rest * 1000, longest)
        result.lowMs = min(interval.low * 1000, longest)
        result.highMs = min(interval.high * 1000, longest)
        result.isEstimating = total.sigma > Tuning.showableSpread
        result.barRest = total.barRest
    }
}
