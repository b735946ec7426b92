import ArgumentParser
import Foundation
import JobStore
import Logging
import NIOPosix
import RedisLink

/// `headway bench queue`
struct QueueBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue",
        abstract: "Measure the job queue against bare Redis: throughput, waits, traffic, memory.",
        discussion: """
            Starts a redis-server of its own (loopback, no persistence) and worker processes of its own. The floor is three small \
            scripts over a blocking hiredis connection; floor, ours and peers take turns in every round, and the median of the rounds counts.
            """
    )

    @OptionGroup var common: CommonOptions
    @Option(help: "Rounds, 1…20.") var rounds = 3
    @Flag(help: "One small round of what takes no long waits: under a minute.") var quick = false
    @Flag(help: "JSON instead of a table.") var json = false
    @Flag(help: "With an append-only file, written every second.") var appendonly = false
    @Option(help: ArgumentHelp("The redis-server to start.", valueName: "program")) var redisServer: String?
    @Option(
        help: ArgumentHelp(
            "Program that measures other queues on our Redis: called as PROGRAM NAME URL JOBS; called as PROGRAM list it prints their names.",
            valueName: "program"
        )
    )
    var peers: String?
    @Option(parsing: .singleValue, help: "Only this part; may be repeated: throughput start traffic memory idle cancel kill depth.")
    var only: [Part] = []

    enum Part: String, ExpressibleByArgument, CaseIterable {
        case throughput, start, traffic, memory, idle, cancel, kill, depth
    }

    func validate() throws {
        guard (1...20).contains(rounds) else { throw ValidationError("--rounds: 1…20") }
    }

    func run() async throws {
        let settings = try common.reader([.init(Settings.devRedisServer, redisServer)])
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let name = try settings.value(Settings.devRedisServer)
        guard let program = ProgramSearch.find(name, path: path) else { throw CommandError(.failed, "\(name) is not installed") }
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("headway-bench-\(UUID().uuidString)").path
        try Directory.make(directory)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let redis = try await BenchRedis.start(program: program, directory: directory, isDurable: appendonly)
        let result: Result<Figures, any Error>
        do {
            result = .success(try await measure(redis, directory))
        } catch {
            result = .failure(error)
        }
        await redis.stop()
        try result.get().report(json: json)
    }

    private func measure(_ redis: BenchRedis, _ directory: String) async throws -> Figures {
        var configuration = try RedisConfiguration(url: redis.url)
        configuration.clientName = QueueBench.clientName
        configuration.poolSize = 1
        let client = RedisClient(
            configuration: configuration,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "bench", factory: { _ in SwiftLogNoOpLogHandler() })
        )
        let running = Task { try await client.run() }  // Ended below: the client lives as long as the measurement.
        defer { running.cancel() }
        let store = JobStore(redis: client, keys: Keys())
        let bench = QueueBench(
            redis: redis,
            store: store,
            workers: BenchWorkers(redis: redis, store: store, directory: directory),
            scale: quick ? .quick : .full(rounds: rounds)
        ) { Output.error.line($0) }
        // On the connection's loop, as a worker is.
        try await withTaskExecutorPreference(LoopExecutor(client.eventLoop)) { try await play(bench) }
        return bench.figures
    }

    private func play(_ bench: QueueBench) async throws {
        func has(_ part: Part) -> Bool { only.isEmpty || only.contains(part) }
        for round in 1...bench.scale.rounds {
            if has(.throughput) { try await step("round \(round): throughput") { try await bench.throughput() } }
            if has(.start) {
                try await step("round \(round): submit to start") { try await bench.startLatency() }
                if let peers {
                    try await step("round \(round): peers") { try await bench.peers(peers) }
                }
            }
            if has(.cancel) { try await step("round \(round): cancel") { try await bench.cancelRunning() } }
            if has(.idle) { try await step("round \(round): idle workers") { try await bench.idle() } }
        }
        if has(.traffic) { try await step("commands per job") { try await bench.commandsPerJob() } }
        if has(.memory) { try await step("memory") { try await bench.memory() } }
        if has(.kill) { try await step("kill -9") { try await bench.killed() } }
        if has(.depth) { try await step("depth") { try await bench.depths() } }
    }

    private func step(_ name: String, _ body: () async throws -> Void) async throws {
        let start = ContinuousClock.now
        try await body()
        Output.error.line("\(name): \((ContinuousClock.now - start).components.seconds) s")
    }
}
