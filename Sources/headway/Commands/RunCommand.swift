import ArgumentParser
import Foundation
import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Telemetry
import UnixSignals
import WorkerRuntime

/// `headway run`
struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a command as a job of its own, without a queue.",
        usage: "headway run [--job-name NAME] [--redis URL | --gateway URL] [--pipeline NAME] [options] -- CMD ARG…",
        discussion: "Its input, output, signals and exit status are those of the command."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Option(help: ArgumentHelp("Write through this gateway instead of straight into Redis.", valueName: "url"))
    var gateway: String?
    @Option(help: "Id of the job; made up when not set.") var jobName: String?
    @Option(help: "Pipeline whose stages the command goes through.") var pipeline: String?
    @Option(help: "Follow progress bars in the command's output: auto or off.") var bars: String?
    @Flag(help: "Give the command a terminal for its output.") var pty = false
    @Option(help: ArgumentHelp("YAML file with further pipelines.", valueName: "file")) var pipelines: String?
    @Argument(parsing: .postTerminator, help: "After --: what to run.") var command: [String] = []

    func run() async throws {
        let settings = try common.reader(
            redis.flags + [
                .init(Settings.workerPipeline, pipeline), .init(Settings.readsBars, bars), .init(Settings.usesTerminal, pty),
                .init(Settings.pipelines, pipelines), .init(Settings.gatewayURL, gateway),
            ]
        )
        let logger = try Logs.bootstrap(settings, label: "headway.run")
        guard !command.isEmpty else {
            throw CommandError.usage("run needs a command: write it after --, for example `headway run -- make`")
        }
        let name = try settings.value(Settings.workerPipeline)
        guard let pipeline = try Pipelines.load(settings).first(where: { $0.name == name }) else {
            throw CommandError.usage("--pipeline \(name) is not known (--pipelines FILE adds more)")
        }
        guard gateway == nil || redis.redis == nil else {
            throw CommandError.usage(
                "--redis and --gateway exclude each other: progress is written straight into Redis or through a gateway"
            )
        }
        var random = SystemRandomNumberGenerator()
        let made = JobID.make(unixMs: Int(Date().timeIntervalSince1970 * 1000), random: &random)
        guard let id = jobName.map(JobID.init) ?? made else {
            throw CommandError.usage("--job-name must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
        }
        let job = ProducerSubmission(
            id: id,
            pipeline: pipeline.name,
            owner: .anonymous,
            nonce: WorkerEnvironment.randomNonce(),
            producer: "run@\(WorkerEnvironment.hostName().prefix(64))"
        )
        var configuration = ProducerRun.Configuration(
            command: command,
            pipeline: pipeline,
            environment: ProcessInfo.processInfo.environment
        )
        configuration.readsBars = try settings.value(Settings.readsBars)
        configuration.updatesPerSecond = try settings.value(Settings.updateRate)
        if try settings.value(Settings.usesTerminal) {
            let size = Output.standard.size
            configuration.terminal = size.map { TerminalSize(columns: $0.columns, rows: $0.rows) } ?? .standard
        }
        if Output.error.isTerminal { Output.error.line("headway: this is job \(id)") }
        if gateway != nil {
            try await GatewayClient.with(baseURL: settings.value(Settings.gatewayURL)) { client in
                let run = Self.makeRun(configuration, job, store: GatewayProducer(client: client), logger: logger)
                try await follow(run, driving: {})
            }
        } else {
            let session = try RedisSession(settings, logger: logger, poolSize: 2)
            let client = session.client()
            let run = Self.makeRun(configuration, job, store: session.context(client).store, logger: logger)
            try await follow(run, driving: { try await client.run() })
        }
    }

    private static func makeRun(
        _ configuration: ProducerRun.Configuration,
        _ job: ProducerSubmission,
        store: any ProducerStore,
        logger: Logger
    ) -> ProducerRun {
        ProducerRun(
            configuration,
            job: job,
            store: store,
            mirror: OutputMirror(.bytes) { isError, bytes in
                (isError ? Output.error : Output.standard).write(bytes)
            },
            registry: MetricsRegistry(),
            group: MultiThreadedEventLoopGroup.singleton,
            logger: logger
        )
    }

    /// Runs it beside the connection to Redis if there is one, passes signals on, and ends as the command ended.
    private func follow(_ run: ProducerRun, driving connection: @escaping @Sendable () async throws -> Void) async throws {
        let signals = await UnixSignalsSequence(trapping: [.sighup, .sigint, .sigterm])
        let code: Int32 = try await withThrowingTaskGroup(of: Int32?.self) { group in
            group.addTask {
                // Its end is not the command's.
                try? await connection()
                return nil
            }
            group.addTask {
                for await signal in signals { run.pass(signal.rawValue) }
                return nil
            }
            group.addTask { try await Self.exitCode(of: run) }
            defer { group.cancelAll() }
            while let code = try await group.next() { if let code { return code } }
            return 1
        }
        if code != 0 { throw ExitCode(code) }
    }

    private static func exitCode(of run: ProducerRun) async throws -> Int32 {
        do {
            switch try await run.run().exit {
            case .status(let status): return status
            case .signal(let signal): return 128 + signal
            }
        } catch let error as BackendError {
            // As shells and env(1) do.
            Output.error.line("headway: \(error.message)")
            return error.code == "generator_not_found" ? 127 : 126
        } catch let error as StoreError where error.code == .conflict {
            throw CommandError.usage("--job-name: \(error.message)")
        } catch let error as StoreError {
            throw RedisSession.explain(error)
        }
    }
}
