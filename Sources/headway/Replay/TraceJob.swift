import FoundationEssentials
import ProgressCore

/// A recorded job as `headway trace` writes it and `headway replay` reads it; times in seconds.
struct TraceJob: Decodable {
    struct Planned: Decodable {
        var name: String
        var units: Double?
        var work: Double?
    }

    struct Stage: Decodable {
        var name: String
        var start: Double
        var end: Double
        /// Pairs of time since the job's start and value.
        var ticks: [[Double]]
    }

    var pipeline: String
    var worker: String?
    var wclass: String?
    var cold: Bool?
    var plan: [Planned]?
    /// Guesses of the developer, in seconds.
    var declared: [String: Double?]?
    /// When it started, on the clock of its whole set.
    var t: Double?
    var stages: [Stage]?

    /// What tells one start from all others, so that a finished job is known again.
    var key: String { "\(pipeline)|\(worker ?? "")|\(t ?? 0)" }

    var duration: Double { stages?.last?.end ?? 0 }

    /// A tracker as a worker makes it for this job.
    func tracker(_ statistics: LearnedStatistics) -> ProgressTracker {
        let plan = (plan ?? []).map { stage in
            PlannedStage(
                name: stage.name,
                units: stage.units,
                work: stage.work,
                declaredMs: (declared?[stage.name] ?? nil).map { max(1, TraceTime.ms($0)) }
            )
        }
        return ProgressTracker(
            pipeline: Pipeline(name: pipeline, stages: []),
            plan: plan,
            statistics: statistics,
            hints: JobHints(worker: worker ?? "", jobClass: wclass, isCold: cold ?? false),
            startedAtMs: 0
        )
    }

    func units(of stage: String) -> Double? { plan?.first { $0.name == stage }?.units }

    /// What its generator said, in order.
    var events: [(t: Double, update: ProgressUpdate)] {
        var list: [(t: Double, update: ProgressUpdate)] = []
        for stage in stages ?? [] {
            list.append((stage.start, ProgressUpdate(stage: stage.name)))
            for tick in stage.ticks where tick.count == 2 {
                list.append((tick[0], TraceTime.tick(stage.name, value: tick[1], units: units(of: stage.name))))
            }
        }
        return list
    }
}

enum TraceTime {
    /// Milliseconds of seconds; what is no time counts as 0.
    static func ms(_ seconds: Double) -> Int {
        guard seconds.isFinite else { return 0 }
        return Int((min(max(seconds, 0), Double(ProgressLimits.durationMs) / 1000) * 1000).rounded())
    }

    static func tick(_ stage: String, value: Double, units: Double?) -> ProgressUpdate {
        func whole(_ value: Double) -> Int { value.isFinite ? Int(min(max(value, 0), Double(ProgressLimits.steps))) : 0 }
        return ProgressUpdate(stage: stage, step: whole(value), steps: units.map(whole))
    }
}
