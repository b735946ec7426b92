import ArgumentParser
import FoundationEssentials

/// `headway replay`
struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Play recorded jobs through the estimator: JSON lines on stdin, answers on stdout.",
        discussion: """
            Every line is an object: {"op":"start","job":1,"pipeline":…,"worker":…,"wclass":…,"cold":…,"plan":[{"name","units","work"}],\
            "declared":{stage: seconds},"t":…}, then {"op":"stage_start"|"tick"|"stage_end","job":1,"stage":…,"value":…,"t": seconds \
            since the job's start}; {"op":"query","job":1,"t":…} is answered {"p":0…1,"eta":seconds,"lo":…,"hi":…}; \
            {"op":"complete", the whole trace} teaches. The code is the worker's: the same tracker, estimator and learning.
            """
    )

    @Flag(help: "Read trace files instead, and tell how many messages the worker's schedule sends and what the bar loses by it.")
    var schedule = false
    @Argument(help: "Trace files for --schedule, one job a line.") var traces: [String] = []

    func validate() throws {
        guard schedule == !traces.isEmpty else { throw ValidationError("--schedule and trace files belong together") }
    }

    func run() throws {
        guard !schedule else { return try ScheduleBench(paths: traces).run() }
        var session = ReplaySession()
        var number = 0
        while let line = readLine() {
            number += 1
            guard !line.isEmpty else { continue }
            do throws(ReplaySession.Problem) {
                if let answer = try session.take(line) { Output.standard.line(answer) }
            } catch {
                throw CommandError.usage("line \(number): \(error.message)")
            }
        }
    }
}
