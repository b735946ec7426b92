import ArgumentParser
import JobStore
import ProgressCore

/// `headway stats …`
struct StatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "What was learned of the durations of jobs: list it, move it, forget it.",
        subcommands: [ListStats.self, ExportStats.self, ImportStats.self, ForgetStats.self],
        defaultSubcommand: ListStats.self
    )

    struct ListStats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List the pipelines of which something was learned.")

        @OptionGroup var common: CommonOptions
        @OptionGroup var redis: RedisOptions

        func run() async throws {
            let session = try RedisSession(common.reader(redis.flags))
            let rows = try await session.read { (store) async throws(StoreError) in
                var rows: [[String]] = []
                for name in try await store.statisticsPipelines() {
                    rows.append([name, "\(try await store.statistics(pipeline: name).jobs)"])
                }
                return rows
            }
            if rows.isEmpty { return Output.error.line("headway: nothing was learned yet; jobs that end COMPLETE teach") }
            for line in TextTable.lines(header: ["PIPELINE", "JOBS"], rows: rows, rightAligned: 1...1) { Output.standard.line(line) }
        }
    }

    struct ExportStats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "export",
            abstract: "Print what was learned of a pipeline, for import."
        )

        @OptionGroup var common: CommonOptions
        @OptionGroup var redis: RedisOptions
        @Argument(help: "Name of the pipeline.") var pipeline: String

        func run() async throws {
            let session = try RedisSession(common.reader(redis.flags))
            let pipeline = pipeline
            let statistics = try await session.read { (store) async throws(StoreError) in try await store.statistics(pipeline: pipeline) }
            guard statistics.jobs > 0 else { throw CommandError(.absent, "nothing was learned of \(pipeline)") }
            Output.standard.write(statistics.exported(pipeline: pipeline))
        }
    }

    struct ImportStats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "import",
            abstract: "Add what another deployment learned to what this one knows (or --replace it)."
        )

        @OptionGroup var common: CommonOptions
        @OptionGroup var redis: RedisOptions
        @Flag(help: "Forget what was learned here.") var replace = false
        @Option(help: "Under this name instead of the one in the file.") var pipeline: String?
        @Argument(help: "A file written by `headway stats export`.") var file: String

        func run() async throws {
            let session = try RedisSession(common.reader(redis.flags))
            let imported: (pipeline: String, statistics: LearnedStatistics)
            let text = try TextFile.read(file, limit: Limits.statisticsFileBytes)
            do throws(StatisticsError) {
                imported = try LearnedStatistics.imported(text)
            } catch {
                throw CommandError.usage("\(file): \(error)")
            }
            let name = pipeline ?? imported.pipeline
            let replace = replace
            let jobs = try await session.read { (store) async throws(StoreError) in
                var statistics = replace ? LearnedStatistics() : try await store.statistics(pipeline: name)
                statistics.merge(imported.statistics)
                try await store.setStatistics(statistics, pipeline: name)
                return statistics.jobs
            }
            Output.error.line("headway: \(name) knows \(jobs) jobs now")
        }
    }

    struct ForgetStats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "forget", abstract: "Forget what was learned of a pipeline.")

        @OptionGroup var common: CommonOptions
        @OptionGroup var redis: RedisOptions
        @Argument(help: "Name of the pipeline.") var pipeline: String

        func run() async throws {
            let session = try RedisSession(common.reader(redis.flags))
            let pipeline = pipeline
            try await session.read { (store) async throws(StoreError) in try await store.forgetStatistics(pipeline: pipeline) }
        }
    }
}

/// `headway trace JOB`
struct TraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract: "Print when the stages of a finished job began, ended and ticked, as one line for `headway replay`.",
        discussion:
            "Times are seconds since the job began on its worker. Of a stage with more than 64 ticks only every second, fourth, … is kept."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Argument(help: "Ids of the jobs.") var jobs: [String]

    func run() async throws {
        let session = try RedisSession(common.reader(redis.flags))
        for job in try WatchCommand.checked(jobs) {
            guard let id = JobID(job) else { continue }
            let found = try await session.read { (store) async throws(StoreError) in
                (try await store.trace(id), try await store.snapshot(id, fields: ["pipeline", "params", "created_at", "claimed_at"]))
            }
            guard let snapshot = found.1 else { throw CommandError(.absent, "\(job): no such job") }
            guard let trace = found.0, trace.hasPrefix("{") else {
                throw CommandError(.absent, "\(job) has no trace: it did not end COMPLETE, was one of many short jobs, or its worker died")
            }
            func seconds(_ field: String) -> Double { Double(Int(snapshot.fields[field] ?? "") ?? 0) / 1000 }
            let params = snapshot.fields["params"] ?? "{}"
            let pipeline = JSONText.quoted(snapshot.fields["pipeline"] ?? "")
            let head =
                "{\"id\":\"\(job)\",\"pipeline\":\(pipeline),\"params\":\(params),\"t\":\(seconds("claimed_at")),"
                + "\"submitted\":\(seconds("created_at")),"
            Output.standard.line(head + trace.dropFirst())
        }
    }
}
