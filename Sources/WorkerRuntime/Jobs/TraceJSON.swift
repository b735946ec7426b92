import ProgressCore

/// A trace as it is kept with a job: `{"worker","wclass","cold","plan":[…],"declared":{…},"stages":[…]}`, times in seconds since the
/// job's start. `headway trace` adds what the job's hash knows.
enum TraceJSON {
    /// Names come sanitised: none holds a character that JSON would want escaped.
    static func text(_ trace: TraceRecorder, plan: [StageOutline], hints: JobHints) -> String {
        let planned = plan.map { stage in
            "{\"name\":\"\(stage.name)\",\"units\":\(number(stage.units)),\"work\":\(number(stage.work ?? 1))}"
        }
        let declared = plan.map { "\"\($0.name)\":\(number($0.declaredMs.map { $0 / 1000 }))" }
        let stages = trace.stages.map { stage in
            let ticks = stage.ticks.map { "[\(seconds($0.atMs)),\(number($0.value))]" }
            return "{\"name\":\"\(stage.name)\",\"units\":\(number(stage.units)),\"start\":\(seconds(stage.startMs)),"
                + "\"ticks\":[\(ticks.joined(separator: ","))],\"end\":\(seconds(stage.endMs))}"
        }
        return "{\"worker\":\"\(hints.worker)\",\"wclass\":\"\(hints.jobClass)\",\"cold\":\(hints.isCold),"
            + "\"plan\":[\(planned.joined(separator: ","))],\"declared\":{\(declared.joined(separator: ","))},"
            + "\"stages\":[\(stages.joined(separator: ","))]}"
    }

    private static func seconds(_ ms: Int) -> String { number(Double(ms) / 1000) }

    private static func number(_ value: Double?) -> String {
        guard let value, value.isFinite else { return "null" }
        if value == value.rounded(), abs(value) < 1e15 { return "\(Int(value))" }
        return "\(value)"
    }
}
