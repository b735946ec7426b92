import ArgumentParser
import Foundation
import ProgressCore

/// `headway bench wait`
struct WaitBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wait",
        abstract: "Measure forecasts of waits: lines of jobs played from nothing to their end by the shipped code.",
        discussion: """
            In each scenario jobs come by chance, to workers that serve them first come first served; their plans tell how large they are, \
            and nobody tells how fast a worker is. Every wait is forecast at its submit, by what was learned until then and by what the \
            running jobs tell. Scored are waits of more than five seconds. Median over the seeds, with the least and the greatest.
            """
    )

    @Option(help: "Seeds, 1…100.") var seeds = 9
    @Option(help: "Jobs of a run, 300…20000; the first 200 are not scored.") var jobs = 1500
    @Option(help: "Work that comes, in per cent of what the workers can do, 10…120.") var load = 95
    @Flag(help: "JSON instead of a table.") var json = false

    func validate() throws {
        guard (1...100).contains(seeds), (300...20_000).contains(jobs), (10...120).contains(load) else {
            throw ValidationError("a value is out of its range")
        }
    }

    func run() async throws {
        var figures = Figures()
        for var scenario in WaitSimulation.Scenario.all {
            scenario.load = Double(load) / 100
            for seed in 0..<seeds {
                var simulation = WaitSimulation(scenario, seed: UInt64(seed))
                let result = simulation.run(jobs: jobs)
                let name = scenario.name
                figures.add("\(name): median |forecast - wait| / wait", 100 * result.medianError, "%", .atMost(8))
                figures.add("\(name): waits inside their 80 % interval", 100 * result.coverage, "%", .atLeast(70))
                figures.add("\(name): mean |forecast - wait| / mean wait", 100 * result.meanError, "%")
                figures.add("\(name): mean (forecast - wait) / mean wait", 100 * result.bias, "%")
                figures.add("\(name): mean wait", result.meanWaitSeconds, "s")
            }
        }
        try figures.report(json: json)
    }
}

extension Figures {
    /// Prints them, and on the error output which goals were missed.
    func report(json: Bool) throws {
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .withoutEscapingSlashes]
            Output.standard.line(String(decoding: try encoder.encode(["figures": all]), as: UTF8.self))
        } else {
            for figure in all { Output.standard.line(figure.line) }
        }
        let missed = all.filter { $0.isMet == false }.map(\.name)
        if !missed.isEmpty { Output.error.line("missed: \(missed.joined(separator: "; "))") }
    }
}
