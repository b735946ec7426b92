extension StageOutline {
    /// The stages of a pipeline as far as its author described them.
    ///
    /// A stage without an expected duration has its share of those that have one, by weight. How likely it is to run is what
    /// earlier jobs did, with the author's word counting as one of them.
    static func list(_ pipeline: Pipeline, statistics: LearnedStatistics) -> [StageOutline] {
        let stages = pipeline.stages.prefix(ProgressLimits.stages)
        var timed = (ms: 0.0, weight: 0.0)
        for stage in stages {
            guard let expected = stage.expectedMs else { continue }
            timed.ms += Double(expected)
            timed.weight += stage.weight
        }
        let whole = timed.weight > 0 ? timed.ms / timed.weight : Tuning.undeclaredSeconds * 1000 * Double(stages.count)
        let routes = statistics.routes.map { (names: Set($0.route.names), weight: $0.weight) }
        let total = routes.reduce(1) { $0 + $1.weight }
        return stages.map { stage in
            let visited = routes.reduce(1) { $0 + ($1.names.contains(stage.name) ? $1.weight : 0) }
            return StageOutline(
                name: stage.name,
                phase: stage.phase,
                declaredMs: stage.expectedMs.map(Double.init) ?? stage.weight * whole,
                probability: visited / total
            )
        }
    }

    /// A stage of a job's plan; numbers that make no sense are as if not given.
    init(_ planned: PlannedStage, name: String) {
        func positive(_ value: Double?) -> Double? {
            value.flatMap { $0 > 0 && $0 <= ProgressLimits.planUnits ? $0 : nil }
        }
        self.init(
            name: name,
            units: positive(planned.units),
            work: positive(planned.work),
            declaredMs: planned.declaredMs.flatMap { (1...ProgressLimits.durationMs).contains($0) ? Double($0) : nil }
        )
    }
}
