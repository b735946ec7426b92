import ArgumentParser
import JobStore
import NIOCore
import NIOPosix
import ProgressCore

/// `headway bench`
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure: updates of a deployment (the default), the queue, what progress costs, forecasts of waits.",
        subcommands: [
            UpdateBenchCommand.self, QueueBenchCommand.self, BenchWorkerCommand.self, EstimateBenchCommand.self, WaitBenchCommand.self,
        ],
        defaultSubcommand: UpdateBenchCommand.self
    )
}

/// `headway bench updates`, or only `headway bench`
struct UpdateBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "updates",
        abstract: "Measure a deployment: how long an update takes from a worker's write to a watcher's socket.",
        discussion: """
            Submits jobs of its own to a queue of its own, plays their worker at a steady rate, watches them over WebSocket and cancels \
            them at the end. Writer and watchers are one process, so one clock times both ends. Run it against a deployment that may be loaded.
            """
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @OptionGroup var gateway: GatewayOptions
    @Option(help: "Jobs at once, 1…1000.") var jobs = 1
    @Option(help: "Watchers of each job, 1…1000.") var watchers = 1
    @Option(help: "Updates per second, all jobs together, 1…10000.") var rate = 50
    @Option(help: "How long to measure, in seconds, 1…600.") var seconds = 5

    func validate() throws {
        guard (1...1000).contains(jobs), (1...1000).contains(watchers), (1...10_000).contains(rate), (1...600).contains(seconds),
            jobs * watchers <= 20_000
        else { throw ValidationError("a value is out of its range (at most 20000 watchers in all)") }
    }

    func run() async throws {
        let settings = try common.reader(redis.flags + [gateway.flag])
        let address = try Self.address(try settings.value(Settings.gatewayURL))
        let bench = LatencyBench(jobs: jobs, watchers: watchers, rate: rate, seconds: seconds, address: address)
        let result = try await RedisSession(settings, poolSize: 2).read { (store) async throws(StoreError) in try await bench.run(store) }
        guard result.delivered.count == result.expected else {
            for line in result.lines { Output.standard.line(line) }
            throw CommandError(.failed, "\(result.expected - result.delivered.count) of \(result.expected) deliveries did not arrive")
        }
        for line in result.lines { Output.standard.line(line) }
    }

    private static func address(_ url: String) throws(CommandError) -> (host: String, port: Int) {
        let parts = url.split(separator: "/", omittingEmptySubsequences: true)
        guard url.hasPrefix("http://"), parts.count >= 2, let colon = parts[1].lastIndex(of: ":"),
            let port = Int(parts[1][parts[1].index(after: colon)...])
        else { throw .usage("--gateway: bench needs http://HOST:PORT") }
        return (String(parts[1][..<colon]), port)
    }
}

/// One paced run.
struct LatencyBench: Sendable {
    let jobs: Int
    let watchers: Int
    let rate: Int
    let seconds: Int
    let address: (host: String, port: Int)

    struct Result: Sendable {
        var expected = 0
        /// Worker's call of `advance` → event read from the watcher's socket.
        var delivered: [Int] = []
        /// Worker's call of `advance` → its reply: the part that is Redis and the link.
        var written: [Int] = []

        var lines: [String] {
            [
                "write -> watcher's socket   \(Self.summary(delivered))", "write -> Redis's reply       \(Self.summary(written))",
            ]
        }

        private static func summary(_ values: [Int]) -> String {
            guard !values.isEmpty else { return "nothing arrived" }
            let sorted = values.sorted()
            func at(_ share: Double) -> String {
                let us = sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
                return "\(us / 1000).\(String(us % 1000 + 1000).dropFirst()) ms"
            }
            return "p50 \(at(0.5))  p90 \(at(0.9))  p99 \(at(0.99))  max \(at(1))  n \(sorted.count)"
        }
    }

    func run(_ store: JobStore) async throws(StoreError) -> Result {
        let queue = "bench-\(String(UInt32.random(in: 0...UInt32.max), radix: 16))"
        let group = MultiThreadedEventLoopGroup.singleton
        let arrivals = BenchArrivals()
        var leases: [Lease] = []
        for number in 0..<jobs {
            guard let id = JobID("\(queue)-\(number)") else { continue }
            _ = try await store.submit(JobSubmission(id: id, queue: queue, pipeline: "generic", owner: .anonymous, paramsJSON: "{}"))
            if case .job(let claim) = try await store.claim(queue: queue, worker: queue, nonce: "\(queue)-\(number)") {
                leases.append(claim.lease)
            }
        }
        var channels: [any Channel] = []
        do {
            for number in 0..<jobs * watchers {
                channels.append(
                    try await BenchWatcher.connect(
                        to: address,
                        jobs: [leases[number % jobs].job.text],
                        arrivals: arrivals,
                        group: group
                    )
                )
            }
        } catch {
            throw StoreError(.unavailable, "the gateway does not take WebSockets: \(error)")
        }
        // connected, ack and snapshot: whoever has them is watching.
        try await wait(within: .seconds(30)) { arrivals.eventCount >= 3 * jobs * watchers }
        let result = try await play(store, leases, arrivals)
        for lease in leases { _ = try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) }
        for channel in channels { channel.close(promise: nil) }
        return result
    }

    private func play(_ store: JobStore, _ leases: [Lease], _ arrivals: BenchArrivals) async throws(StoreError) -> Result {
        var result = Result()
        let clock = ContinuousClock()
        let start = clock.now
        let updates = rate * seconds
        for update in 0..<updates {
            try? await clock.sleep(until: start + .nanoseconds(update * 1_000_000_000 / rate))
            let lease = leases[update % leases.count]
            var state = ProgressState(phase: .generating, percent: 99 * Double(update) / Double(updates), stage: "bench")
            let sent = NIODeadline.now()
            state.message = "t=\(sent.uptimeNanoseconds)"
            _ = try await store.advance(lease, write: update + 1, to: state)
            result.written.append(Int((NIODeadline.now() - sent).nanoseconds / 1000))
        }
        result.expected = updates * watchers
        let expected = result.expected
        try await wait(within: .seconds(10)) { arrivals.latenciesUs.count >= expected }
        result.delivered = arrivals.latenciesUs
        return result
    }

    /// Waits for a condition, at most so long; what is missing then shows in the result.
    private func wait(within limit: Duration, _ condition: () -> Bool) async throws(StoreError) {
        let deadline = ContinuousClock.now + limit
        while !condition(), ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}
