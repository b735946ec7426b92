import Glibc
import JobStore
import ProgressCore
import TestSupport
import Testing

/// `headway stats …` and `headway trace`, by the built program on a real Redis, of jobs that a real worker ran.
@Suite(.serialized, .timeLimit(.minutes(5))) struct StatsCommandTests {
    /// Runs a command to its end.
    private func headway(_ deployment: Deployment, _ arguments: [String], status: Int32 = 0) async throws -> HeadwayProcess {
        let name = "cli-\(UInt32.random(in: 0...UInt32.max))"
        let process = try deployment.headway(name, arguments + ["--redis", deployment.redis.url])
        let exit = try await process.process.waitForExit(within: .seconds(60))
        #expect(exit == .status(status), "\(arguments): \(exit) \(process.errors)")
        return process
    }

    /// A job of class `big` that ended well and was learned from.
    private func teach(_ deployment: Deployment) async throws {
        let gateway = try await deployment.gateway()
        let worker = try await deployment.worker(gateway: gateway)
        let submit = try deployment.headway(
            "submit",
            [
                "submit", "--gateway", gateway.url, "--queue", "gpu", "--pipeline", "generic", "--id", "taught", "--class", "big", "--cold",
                "--params", "{\"steps\":5,\"delay_ms\":20,\"stages\":[\"one\",\"two\"]}", "--watch",
            ]
        )
        #expect(try await submit.process.waitForExit(within: .seconds(90)) == .status(0), "\(submit.errors)")
        let job = try #require(JobID("taught"))
        // The list of pipelines is written last.
        try await eventually(within: .seconds(60), "the lesson, the trace and the list") {
            guard try await deployment.store.trace(job) != nil else { return false }
            return try await deployment.store.statisticsPipelines().contains("generic")
        }
        worker.kill()
    }

    @Test func whatWasLearnedIsListedMovedAndForgotten() async throws {
        try await Deployment.with { deployment in
            #expect(try await headway(deployment, ["stats"]).errors.contains("nothing was learned"))
            _ = try await headway(deployment, ["stats", "export", "generic"], status: 4)
            try await teach(deployment)
            let list = try await headway(deployment, ["stats"]).output
            #expect(list.contains("PIPELINE") && list.contains("generic"), "\(list)")
            let exported = try await headway(deployment, ["stats", "export", "generic"])
            #expect(exported.output.contains("s|one|big|1") && exported.output.contains("s|two|big|1"), "\(exported.output)")

            _ = try await headway(deployment, ["stats", "forget", "generic"])
            _ = try await headway(deployment, ["stats", "export", "generic"], status: 4)
            #expect(try await deployment.store.statistics(pipeline: "generic").jobs == 0)
            #expect(try await headway(deployment, ["stats", "import", exported.outputPath]).errors.contains("generic knows 1 jobs"))
            #expect(try await headway(deployment, ["stats", "export", "generic"]).output == exported.output, "the way there and back")
            // Once more adds, elsewhere stands beside, and --replace starts anew.
            #expect(try await headway(deployment, ["stats", "import", exported.outputPath]).errors.contains("knows 2 jobs"))
            _ = try await headway(deployment, ["stats", "import", "--pipeline", "other", exported.outputPath])
            #expect(try await deployment.store.statistics(pipeline: "other").jobs == 1)
            #expect(try await headway(deployment, ["stats", "import", "--replace", exported.outputPath]).errors.contains("knows 1 jobs"))

            let rubbish = "\(deployment.directory)/rubbish"
            let file = try #require(fopen(rubbish, "w"))
            fputs("{\"not\":\"ours\"}\n", file)
            fclose(file)
            let refused = try await headway(deployment, ["stats", "import", rubbish], status: 2)
            #expect(refused.errors.contains("rubbish"), "\(refused.errors)")
            #expect(try await deployment.store.statistics(pipeline: "generic").jobs == 1, "what is refused changes nothing")
            _ = try await headway(deployment, ["stats", "import", "/nonexistent/file"], status: 2)
        }
    }

    @Test func aTraceIsALineThatCanBeReplayed() async throws {
        try await Deployment.with { deployment in
            _ = try await headway(deployment, ["trace", "taught"], status: 4)
            try await teach(deployment)
            let trace = try await headway(deployment, ["trace", "taught"])
            let lines = trace.output.split(separator: "\n")
            #expect(lines.count == 1)
            for part in [
                "\"id\":\"taught\"", "\"pipeline\":\"generic\"", "\"wclass\":\"big\"", "\"cold\":true", "\"name\":\"two\",\"units\":5",
            ] {
                #expect(trace.output.contains(part), "\(part) in \(trace.output)")
            }
            let replay = try deployment.headway("replay", ["replay", "--schedule", trace.outputPath])
            #expect(try await replay.process.waitForExit(within: .seconds(60)) == .status(0), "\(replay.errors)")
            #expect(!replay.output.isEmpty)
        }
    }
}
