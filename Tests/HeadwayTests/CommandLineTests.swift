import Glibc
import JobStore
import TestSupport
import Testing

@testable import headway

/// The program as a process: exit codes, and one line on stderr that names what to change.
@Suite(.timeLimit(.minutes(5))) struct CommandLineTests {
    private struct Outcome {
        let exit: TestSupport.ChildProcess.Exit
        let output: String
        let errors: String
    }

    /// The built program lies beside the test bundle.
    private static func binary() throws -> String {
        let link = try #require(realpath("/proc/self/exe", nil))
        defer { free(link) }
        let path = String(cString: link)
        return path[..<(path.lastIndex(of: "/") ?? path.startIndex)] + "/headway"
    }

    private func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Outcome {
        let directory = try makeTemporaryDirectory(prefix: "hw-cli")
        defer { removeDirectory(directory) }
        let (out, err) = ("\(directory)/out", "\(directory)/err")
        let process = try TestSupport.ChildProcess(
            try Self.binary(),
            arguments,
            environment: environment,
            outputPath: out,
            errorPath: err
        )
        let exit = try await process.waitForExit(within: .seconds(20))
        return Outcome(exit: exit, output: try TextFile.read(out, limit: 1 << 20), errors: try TextFile.read(err, limit: 1 << 20))
    }

    @Test(arguments: [
        (["nonsense"], "headway: Unexpected argument 'nonsense'"),
        (["watch"], "headway: Missing expected argument"),
        (["watch", "a b"], "headway: \"a b\" is no job id"),
        (["gateway", "--bogus"], "headway: Unknown option '--bogus'"),
        (["gateway", "--listen", "nowhere"], "headway: --listen: \"nowhere\" is not allowed; it must be HOST:PORT"),
        (["gateway", "--listen", "0.0.0.0:0"], "headway: --listen 0.0.0.0 can be reached from other machines"),
        (["gateway", "--config", "/nonexistent.yaml"], "headway: /nonexistent.yaml: No such file"),
        (["gateway", "--redis", "http://x"], "headway: --redis: \"http://x\" is not allowed"),
        (["worker"], "headway: --queue (or HEADWAY_WORKER_QUEUES or worker.queues in the settings file) is needed"),
        (["worker", "--queue", "gpu"], "headway: a worker needs a command"),
        (["worker", "--queue", "gpu", "--", "/no/such/program"], "headway: /no/such/program: no such program"),
        (["worker", "--queue", "gpu", "--pipeline", "none", "--", "true"], "headway: --pipeline none is not known; known are hunyuan3d"),
        (["submit"], "headway: --queue (or HEADWAY_SUBMIT_QUEUE"),
        (["submit", "--queue", "q", "--params", "[1]"], "headway: --params: not a JSON object"),
        (["submit", "--queue", "q", "--output", "x"], "headway: --output needs --watch"),
        (["retry", "J", "--params", "[1]"], "headway: --params: not a JSON object"),
        (["why"], "headway: Missing expected argument"),
        (["scripts", "nope"], "headway: there is no script 'nope'; there are: advance, audit, cancel"),
    ])
    func mistakesEndWithTwoAndOneLine(_ arguments: [String], _ expected: String) async throws {
        let outcome = try await run(arguments)
        #expect(outcome.exit == .status(2))
        #expect(outcome.errors.hasPrefix(expected), "\(outcome.errors)")
        #expect(outcome.errors.split(separator: "\n").count == 1 && outcome.output.isEmpty)
    }

    @Test func anUnknownEnvironmentNameIsAMistake() async throws {
        let outcome = try await run(["queues"], environment: ["HEADWAY_REDIS_URI": "x"])
        #expect(outcome.exit == .status(2))
        #expect(outcome.errors.contains("did you mean HEADWAY_REDIS_URL?"))
    }

    @Test func whatIsNotThereIsALostLink() async throws {
        let nowhere = "http://127.0.0.1:1"
        for arguments in [
            ["show", "J"], ["why", "J"], ["retry", "J"], ["cancel", "J"], ["submit", "--queue", "q"], ["watch", "J", "--lost-after", "1s"],
            ["health"],
        ] {
            let outcome = try await run(arguments + ["--gateway", nowhere])
            #expect(outcome.exit == .status(5), "\(arguments): \(outcome.errors)")
        }
        let redis = try await run(["queues", "--redis", "redis://127.0.0.1:1"])
        #expect(redis.exit == .status(5) && redis.errors.contains("127.0.0.1:1"), "\(redis.errors)")
    }

    @Test func helpAndVersionAreNoMistakes() async throws {
        #expect(try await run(["--help"]).exit == .status(0))
        #expect(try await run(["worker", "--help"]).output.contains("-- CMD ARG"))
        let version = try await run(["--version"])
        #expect(version.exit == .status(0) && version.output == "\(Version.text)\n")
        #expect(try await run(["config"]).exit == .status(0))
    }

    @Test func scriptsArePrintedAsRedisTakesThem() async throws {
        let list = try await run(["scripts"])
        #expect(list.exit == .status(0))
        for script in JobStore.scripts {
            #expect(list.output.contains("\n\(script.name) ") && list.output.contains(script.sha1), "\(script.name)")
            #expect(!script.summary.isEmpty && list.output.contains(script.summary), "\(script.name)")
        }
        let report = try await run(["scripts", "report"])
        #expect(report.exit == .status(0) && report.output == JobStore.scripts.first { $0.name == "report" }?.source)
    }

    @Test func watchEndsAsItsJobs() async throws {
        for (phase, type, status) in [("COMPLETE", "complete", CInt(0)), ("FAILED", "failed", 1), ("CANCELLED", "cancelled", 3)] {
            try await FakeGateway.with { request, _ in
                request.path.contains("/events")
                    ? .stream(sse(eventJSON(3, phase, type: type), id: 3), staysOpen: true)
                    : .answer(status: 200, body: eventJSON(1, "QUEUED"))
            } during: { gateway in
                let outcome = try await run(["watch", "J", "--gateway", gateway.url])
                #expect(outcome.exit == .status(status) && outcome.output == "\(phase)\n", "\(outcome.output)")
                let json = try await run(["watch", "J", "--json", "--gateway", gateway.url])
                #expect(json.exit == .status(status) && json.output == eventJSON(3, phase, type: type) + "\n")
            }
        }
        try await FakeGateway.with { _, _ in
            .answer(status: 404, body: "")
        } during: { gateway in
            let outcome = try await run(["watch", "J", "K", "--gateway", gateway.url])
            #expect(outcome.exit == .status(4))
        }
    }

    @Test func anInterruptedWatchLeavesTheJobAlone() async throws {
        try await FakeGateway.with { request, _ in
            request.path.contains("/events")
                ? .stream(sse(eventJSON(3, "GENERATING"), id: 3), staysOpen: true) : .answer(status: 200, body: eventJSON(1, "QUEUED"))
        } during: { gateway in
            let directory = try makeTemporaryDirectory(prefix: "hw-cli")
            defer { removeDirectory(directory) }
            let process = try TestSupport.ChildProcess(
                try Self.binary(),
                ["watch", "J", "--gateway", gateway.url],
                outputPath: "\(directory)/out",
                errorPath: "\(directory)/err"
            )
            try await eventually(within: .seconds(10), "a line") {
                try TextFile.read("\(directory)/out", limit: 1000).contains("GENERATING")
            }
            process.signal(SIGINT)
            #expect(try await process.waitForExit() == .status(130))
            #expect(
                try TextFile.read("\(directory)/err", limit: 1000).hasPrefix("headway: job J goes on; `headway watch J` shows it again")
            )
            #expect(gateway.seen.allSatisfy { $0.method == "GET" })
        }
    }
}
