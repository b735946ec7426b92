import Glibc
import JobStore
import ProgressCore
import TestSupport
import Testing

/// `headway run -- CMD`: a command as a job of its own.
@Suite(.serialized, .timeLimit(.minutes(5))) struct RunCommandTests {
    private func run(_ name: String, _ script: String, in deployment: Deployment, redis: String? = nil) throws -> HeadwayProcess {
        try deployment.headway(
            "run-\(name)",
            ["run", "--job-name", name, "--redis", redis ?? deployment.redis.url, "--", "sh", "-c", script]
        )
    }

    @Test func theCommandIsItselfAndItsBarIsAJob() async throws {
        try await Deployment.with { deployment in
            let script = """
                echo out; echo err >&2
                for n in 1 2 3 4; do printf '\\rCopying: %d%%|##   | %d/4 [00:0%d<00:01,  1.00it/s]' $((n * 25)) $n $n >&2; done; exit 7
                """
            let process = try run("a", script, in: deployment)
            #expect(try await process.process.waitForExit(within: .seconds(60)) == .status(7))
            #expect(process.output == "out\n")
            #expect(process.errors.contains("err\n") && process.errors.contains("\rCopying: 100%|##   | 4/4"))
            let end = try await deployment.waitForEnd(try #require(JobID("a")))
            #expect(end.phase == .failed)
            #expect(end.fields["stage"] == "Copying" && end.fields["step"] == "4")
        }
    }

    @Test func aSignalIsPassedOnAndCancels() async throws {
        try await Deployment.with { deployment in
            let process = try run("a", "trap 'echo saved; exit 3' INT; echo ready; while :; do sleep 0.1; done", in: deployment)
            _ = try await process.line(startingWith: "ready", within: .seconds(60))
            process.process.signal(SIGINT)
            #expect(try await process.process.waitForExit(within: .seconds(60)) == .status(3))
            #expect(process.output.contains("saved"))
            #expect(try await deployment.waitForEnd(try #require(JobID("a"))).phase == .cancelled)
        }
    }

    @Test func itRunsWithoutRedis() async throws {
        try await Deployment.with { deployment in
            let process = try run("a", "echo done", in: deployment, redis: "redis://127.0.0.1:1")
            #expect(try await process.process.waitForExit(within: .seconds(120)) == .status(0))
            #expect(process.output == "done\n")
        }
    }
}
