import Foundation
import JobStore

/// Worker processes of one benchmark, real ones, on its Redis.
struct BenchWorkers: Sendable {
    let redis: BenchRedis
    let store: JobStore
    let directory: String

    struct Running: Sendable {
        let name: String
        let process: ChildProcess
        let marksPath: String

        var marks: [MarkFile.Mark] { MarkFile.read(marksPath) }

        /// As a power cut would end it.
        func kill() { Foundation.kill(process.pid, SIGKILL) }

        func stop() async { await process.stop(grace: .seconds(5)) }
    }

    /// Starts one that plays its jobs and waits until it is registered.
    func start(_ name: String, queue: String) async throws -> Running {
        let marks = "\(directory)/\(name).marks"
        return try await start(
            name,
            [
                "bench", "worker", "--redis", redis.url, "--queue", queue, "--name", name, "--marks", marks, "--work-dir",
                "\(directory)/work",
            ],
            marks: marks
        )
    }

    /// Starts a `headway worker` that runs a command.
    func start(_ name: String, queue: String, command: [String]) async throws -> Running {
        try await start(
            name,
            ["worker", "--redis", redis.url, "--queue", queue, "--name", name, "--work-dir", "\(directory)/work", "--"] + command,
            marks: ""
        )
    }

    private func start(_ name: String, _ arguments: [String], marks: String) async throws -> Running {
        let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let running = Running(name: name, process: try ChildProcess(program, arguments), marksPath: marks)
        try await BenchWait.until(within: .seconds(30), "worker \(name) is registered") {
            if let exit = running.process.exit { throw CommandError(.failed, "worker \(name) ended at once: \(exit)") }
            return try await store.workers().contains { $0.id == name }
        }
        return running
    }
}

enum BenchWait {
    /// Looks until `holds`; what does not come in time is an error that says so.
    static func until(within limit: Duration, _ what: String, _ holds: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now + limit
        while try await !holds() {
            guard .now < deadline else { throw CommandError(.failed, "not within \(limit): \(what)") }
            try await Task.sleep(for: .milliseconds(5))
        }
    }
}

/// How much one run of the benchmark does.
struct BenchScale {
    var rounds: Int
    /// Jobs per throughput figure and round.
    var jobs: Int
    /// Jobs per latency figure and round.
    var latencyJobs: Int
    /// How long workers are left alone before they are counted and woken.
    var idleSeconds: Int
    /// Workers that are idle at once.
    var idleWorkers: Int
    /// Depths at which position and cancel are timed.
    var depths: [Int]
    /// Workers killed.
    var kills: Int

    static func full(rounds: Int) -> BenchScale {
        BenchScale(
            rounds: rounds,
            jobs: 5000,
            latencyJobs: 300,
            idleSeconds: 60,
            idleWorkers: 20,
            depths: [1000, 100_000, 1_000_000],
            kills: 5
        )
    }

    static let quick = BenchScale(
        rounds: 1,
        jobs: 1000,
        latencyJobs: 60,
        idleSeconds: 10,
        idleWorkers: 5,
        depths: [1000, 20_000],
        kills: 0
    )
}
