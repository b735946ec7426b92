import FoundationEssentials
import JobStore
import ProgressCore
import TestSupport
import Testing

/// The time of day jumps under running processes: the monotonic clock goes on as it is.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ClockTests {
    /// Tells one process what time it is.
    private struct WrongClock {
        let path: String
        let library: String

        init(_ name: String, in directory: String, library: String) throws {
            path = "\(directory)/\(name).clock"
            self.library = library
            try set(0)
        }

        /// Off by so many seconds from now on.
        func set(_ seconds: Int) throws { try "\(seconds)\n".write(toFile: path, atomically: true, encoding: .utf8) }

        var environment: [String: String] { ["LD_PRELOAD": library, "WRONG_CLOCK": path] }
    }

    private func makeLibrary(in directory: String) async throws -> String {
        let library = "\(directory)/wrong_clock.so"
        let source = Deployment.file("Tests/Fixtures/clock/wrong_clock.c")
        let compiler = try ChildProcess(
            "/usr/bin/env",
            ["clang", "-shared", "-fPIC", "-O1", "-o", library, source],
            outputPath: library + ".out",
            errorPath: library + ".err"
        )
        #expect(try await compiler.waitForExit(within: .seconds(60)) == .status(0))
        return library
    }

    @Test(arguments: [[3600, -3600], [-3600, 3600]])
    func jumpsOfAnHourChangeNothing(_ jumps: [Int]) async throws {
        try await Deployment.with { deployment in
            let library = try await makeLibrary(in: deployment.directory)
            let ofWorker = try WrongClock("worker", in: deployment.directory, library: library)
            let ofGateway = try WrongClock("gateway", in: deployment.directory, library: library)
            let gateway = try await deployment.gateway(environment: ofGateway.environment)
            _ = try await deployment.worker(flags: ["--lease", "3s", "--heartbeat", "500ms"], environment: ofWorker.environment)
            let job = try await deployment.submit("a", params: "{\"steps\":30,\"delay_ms\":60,\"stages\":[\"analysis\",\"making\"]}")
            let watcher = try deployment.headway("watch", ["watch", job.text, "--json", "--gateway", gateway.url])
            _ = try await watcher.line(startingWith: "{")
            for (jump, percent) in zip(jumps, [15.0, 45]) {
                try await deployment.waitFor(job, percent: percent)
                try ofWorker.set(jump)
                try ofGateway.set(-jump)
            }
            #expect(try await watcher.process.waitForExit(within: .seconds(90)) == .status(0))
            let events = try WireEvent.lines(watcher.output)
            expectTruthful(events, end: "complete")
            #expect(events.last?.attempt == 1)
            // Times are those of Redis, and what is left of a job is no hour.
            let now = Int(Date().timeIntervalSince1970 * 1000)
            for at in events.compactMap(\.at) { #expect(abs(now - at) < 600_000) }
            for eta in events.compactMap(\.etaMs) { #expect(eta < 600_000) }
            // It still takes jobs, and still looks alive.
            let next = try await deployment.submit("b", params: "{\"steps\":2,\"delay_ms\":10,\"stages\":[\"making\"]}")
            #expect(try await deployment.waitForEnd(next).phase == .complete)
            #expect(try await deployment.store.workers().count == 1)
        }
    }
}
