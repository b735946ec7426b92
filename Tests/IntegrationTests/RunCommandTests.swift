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
            #expect(end.fields["stage"] == "Copying")
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

    @Test func itsProgressGoesThroughAGateway() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let script = """
                echo '{"stage":"sketch","step":3,"steps":4,"message":"almost"}' >&3; echo hello; echo woe >&2; exit 3
                """
            let process = try deployment.headway(
                "run",
                ["run", "--job-name", "g", "--gateway", gateway.url, "--", "sh", "-c", "exec 3>&$HEADWAY_PROGRESS_FD; " + script]
            )
            #expect(try await process.process.waitForExit(within: .seconds(60)) == .status(3))
            #expect(process.output == "hello\n")
            let job = try #require(JobID("g"))
            let end = try await deployment.waitForEnd(job)
            #expect(end.phase == .failed)
            let seen = ["stage", "step", "message"].map { end.fields[$0] }
            #expect(seen == ["sketch", "3", "almost"])
            let logs = try await deployment.store.logs(job, limit: 10)
            #expect(Set(logs.map { "\($0.stream) \($0.text)" }) == ["stdout hello", "stderr woe"])
        }
    }

    @Test func aGatewayThatIsNotThereDoesNotStopTheCommand() async throws {
        try await Deployment.with { deployment in
            let process = try deployment.headway("run", ["run", "--gateway", "http://127.0.0.1:1", "--", "sh", "-c", "echo done"])
            #expect(try await process.process.waitForExit(within: .seconds(120)) == .status(0))
            #expect(process.output == "done\n")
            let refused = try deployment.headway(
                "both",
                ["run", "--gateway", "http://127.0.0.1:1", "--redis", "redis://127.0.0.1:1", "--", "true"]
            )
            #expect(try await refused.process.waitForExit(within: .seconds(60)) == .status(2))
            #expect(refused.errors.contains("exclude each other"))
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
