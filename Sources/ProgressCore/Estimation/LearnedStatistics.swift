/// What the finished jobs of one pipeline say about the next: decayed sums, from which `StageForecast` predicts.
///
/// A value. In Redis it is one hash that `learn.lua` changes exactly as `learn(_:)` changes this; each number is a sum or
/// follows from sums, so that two stores can be merged. Its size is bounded: what was not touched for longest is dropped.
public struct LearnedStatistics: Sendable, Hashable {
    /// Of the layout; another one is not read.
    public static let version = 1

    struct Field: Sendable, Hashable {
        var values: [Double]
        /// The number of the job that touched it last.
        var stamp: Int
    }

    /// Jobs that were learned from.
    public internal(set) var jobs = 0
    var fields: [String: Field] = [:]
    public internal(set) var calibration = IntervalCalibration()
    /// Who ran the last job: what two workers in a row show is not one worker's own.
    var lastWorker = ""
    /// The ways that jobs without a plan went, most common first.
    public internal(set) var routes: [WeightedRoute] = []

    public struct WeightedRoute: Sendable, Hashable {
        public internal(set) var route: StageRoute
        /// Decayed number of jobs.
        public internal(set) var weight: Double
    }

    /// Nothing learned yet.
    public init() {}

    func values(_ field: String) -> [Double]? { fields[field]?.values }

    /// Whether a job that named no stage teaches something by the time it took. Never false for one that does.
    public func learnsFromSilence(ofMs durationMs: Int) -> Bool { !fields.isEmpty || Double(durationMs) / 1000 >= Tuning.shortestStart }

    /// The logarithm by which this worker's jobs take longer than the stages' sums say.
    func workerFactor(_ worker: String) -> Double {
        (values(StageKey.worker(worker))?[0] ?? 0) + (values(StageKey.fleet)?[0] ?? 0)
    }

    // MARK: Learning

    /// Takes in what one job taught. `learn.lua` does the same, in the same order of operations.
    public mutating func learn(_ record: LearningRecord) {
        jobs += 1
        for addition in record.additions {
            switch addition.terms {
            case .values(let terms):
                var values = touched(addition.field, width: terms.count)
                for index in terms.indices { values[index] = addition.decay * values[index] + terms[index] }
                fields[addition.field] = Field(values: values, stamp: jobs)
            case .bin(let bin, let width):
                var values = touched(addition.field, width: width)
                for index in values.indices { values[index] = addition.decay * values[index] + (index == bin ? 1 : 0) }
                fields[addition.field] = Field(values: values, stamp: jobs)
            }
        }
        if let error = record.workerError { learnWorker(record.worker, error) }
        calibration.learn(record.deviations)
        if let route = record.route { learn(route) }
        trim()
    }

    private func touched(_ field: String, width: Int) -> [Double] {
        if let values = fields[field]?.values, values.count == width { return values }
        return [Double](repeating: 0, count: width)
    }

    private mutating func learnWorker(_ worker: String, _ measured: Double) {
        var own = touched(StageKey.worker(worker), width: 3)
        var fleet = touched(StageKey.fleet, width: 3)
        var error = measured - own[0] - fleet[0]
        if worker != lastWorker {
            let change = Self.track(&fleet, error, Tuning.fleetSignalGain, Tuning.fleetThreshold, Tuning.fleetGain)
            fields[StageKey.fleet] = Field(values: fleet, stamp: jobs)
            error -= change
        }
        Self.track(&own, error, Tuning.signalGain, Tuning.signalThreshold, Tuning.workerGain)
        fields[StageKey.worker(worker)] = Field(values: own, stamp: jobs)
        lastWorker = worker
    }

    /// One step of an adaptive filter: errors of one sign raise the gain, errors that alternate lower it.
    @discardableResult
    private static func track(
        _ signal: inout [Double],
        _ error: Double,
        _ smoothing: Double,
        _ threshold: Double,
        _ gain: ClosedRange<Double>
    ) -> Double {
        signal[1] += smoothing * (error - signal[1])
        signal[2] += smoothing * (abs(error) - signal[2])
        let strength = abs(signal[1]) / (signal[2] + Tuning.signalFloor) - threshold
        let change = min(max(strength, gain.lowerBound), gain.upperBound) * error
        signal[0] += change
        return change
    }

    private mutating func learn(_ route: StageRoute) {
        for index in routes.indices { routes[index].weight *= Tuning.forgetting }
        if let index = routes.firstIndex(where: { $0.route == route }) {
            routes[index].weight += 1
        } else {
            routes.append(WeightedRoute(route: route, weight: 1))
        }
        sortRoutes()
    }

    mutating func sortRoutes() {
        routes.sort { ($0.weight, $1.route.text) > ($1.weight, $0.route.text) }
        routes.removeLast(max(0, routes.count - ProgressLimits.routes))
    }

    /// Drops the fields that were touched longest ago, an eighth at once, when there are too many.
    mutating func trim() {
        guard fields.count > ProgressLimits.statisticsFields else { return }
        let byAge = fields.map { (stamp: $0.value.stamp, name: $0.key) }.sorted { ($0.stamp, $0.name) < ($1.stamp, $1.name) }
        for entry in byAge.prefix(fields.count - ProgressLimits.statisticsFields / 8 * 7) { fields[entry.name] = nil }
    }

    /// The numbers that `learn.lua` needs, in its order.
    public static var constants: [Double] {
        [
            Tuning.forgetting, Tuning.calibrationGain, Tuning.firstQuantile, Tuning.signalFloor,
            Tuning.signalGain, Tuning.signalThreshold, Tuning.workerGain.lowerBound, Tuning.workerGain.upperBound,
            Tuning.fleetSignalGain, Tuning.fleetThreshold, Tuning.fleetGain.lowerBound, Tuning.fleetGain.upperBound,
            Double(ProgressLimits.routes),
        ]
    }

    // MARK: Merging

    /// Adds what another deployment learned: sums are added, speeds and quantiles averaged by the number of jobs behind them.
    public mutating func merge(_ other: LearnedStatistics) {
        guard other.jobs > 0 else { return }
        guard jobs > 0 else {
            self = other
            return
        }
        let share = Double(other.jobs) / Double(jobs + other.jobs)
        for (name, theirs) in other.fields {
            guard var ours = fields[name], ours.values.count == theirs.values.count else {
                if fields[name] == nil { fields[name] = theirs }
                continue
            }
            let isMean = name.hasPrefix("w|")
            for index in ours.values.indices {
                let value = theirs.values[index]
                ours.values[index] = isMean ? ours.values[index] * (1 - share) + value * share : ours.values[index] + value
            }
            ours.stamp = max(ours.stamp, theirs.stamp)
            fields[name] = ours
        }
        for bucket in 0..<IntervalCalibration.buckets {
            calibration.low[bucket] = calibration.low[bucket] * (1 - share) + other.calibration.low[bucket] * share
            calibration.high[bucket] = calibration.high[bucket] * (1 - share) + other.calibration.high[bucket] * share
        }
        for theirs in other.routes {
            if let index = routes.firstIndex(where: { $0.route == theirs.route }) {
                routes[index].weight += theirs.weight
            } else {
                routes.append(theirs)
            }
        }
        sortRoutes()
        jobs = min(jobs + other.jobs, ProgressLimits.statisticsJobs)
        trim()
    }
}
