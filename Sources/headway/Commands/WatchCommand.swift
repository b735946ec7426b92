import ArgumentParser
import ProgressCore

/// `headway watch JOB…`
struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Watch jobs until they end: live bars on a terminal, lines when piped.",
        discussion: "Ends with 0 when all are COMPLETE, 1 FAILED, 3 CANCELLED, 4 gone or not found, 5 link lost; the worst of several jobs."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "Ids of the jobs.") var jobs: [String]
    @Flag(help: "Print every event as a JSON line.") var json = false
    @Option(help: "Give up after so long without any word from the gateway, e.g. 60s.") var lostAfter: String?

    func run() async throws {
        let settings = try common.reader([gateway.flag, .init(Settings.json, json), .init(Settings.lostAfter, lostAfter)])
        let url = try settings.value(Settings.gatewayURL)
        let options = try WatchSession.Options(settings)
        let jobs = try Self.checked(jobs)
        let ends = try await GatewayClient.with(baseURL: url) { client in
            try await WatchSession(gateway: client, options: options).run(jobs).map(\.end)
        }
        throw ExitCode(JobEnd.exitCode(ofWorst: ends))
    }

    /// Each id once, in the given order.
    static func checked(_ jobs: [String]) throws(CommandError) -> [String] {
        var seen: Set<String> = []
        let unique = jobs.filter { seen.insert($0).inserted }
        for job in unique where JobID(job) == nil {
            throw .usage("\(job.debugDescription) is no job id; ids are 1 to 128 characters of A-Z a-z 0-9 . _ : - ~")
        }
        guard unique.count <= Limits.watchedJobs else {
            throw .usage("\(unique.count) jobs are too many for one watch; at most \(Limits.watchedJobs)")
        }
        return unique
    }
}
