import ArgumentParser
import JobStore
import NIOPosix

/// Options of a gateway's listener, shared by `gateway` and `dev`.
struct ListenOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Address and port; port 0 picks a free one.", valueName: "host:port")) var listen: String?
    @Flag(help: "Allow a listener that is not on loopback without authentication.") var insecure = false
    @Option(name: .customLong("allow-host"), parsing: .singleValue, help: "Further Host header that a loopback listener accepts.")
    var allowedHosts: [String] = []
    @Option(name: .customLong("allow-origin"), parsing: .singleValue, help: "Other origin whose pages may use the gateway.")
    var allowedOrigins: [String] = []
    @Option(help: "Window over which watchers are sent away on shutdown, e.g. 5s.") var drainWindow: String?
    @Option(help: ArgumentHelp("YAML file with further pipelines.", valueName: "file")) var pipelines: String?

    var flags: [SettingsReader.Flag] {
        [
            .init(Settings.listen, listen), .init(Settings.insecure, insecure), .init(Settings.allowedHosts, allowedHosts),
            .init(Settings.allowedOrigins, allowedOrigins), .init(Settings.drain, drainWindow), .init(Settings.pipelines, pipelines),
        ]
    }
}

/// `headway gateway`
struct GatewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Serve browsers and clients; any number of gateways share one Redis."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @OptionGroup var listener: ListenOptions
    @Option(help: ArgumentHelp("Directory of uploads and result files.", valueName: "dir")) var data: String?
    @Option(name: .customLong("known-queue"), parsing: .singleValue, help: "Queue that exists even while no worker serves it.")
    var queues: [String] = []
    @Flag(help: "Accept jobs for queues that nobody has named.") var anyQueue = false

    func run() async throws {
        let settings = try common.reader(
            redis.flags + listener.flags + [
                .init(Settings.gatewayData, data), .init(Settings.gatewayQueues, queues), .init(Settings.anyQueue, anyQueue),
            ]
        )
        let logger = try Logs.bootstrap(settings, label: "headway.gateway")
        let session = try RedisSession(settings, logger: logger, poolSize: 2)
        let client = session.client()
        let host = try settings.value(Settings.listen).host
        let gateway = try GatewayRole(settings, context: session.context(client)) { port in
            Output.standard.line("listening \(ListenAddress.url(host: host, port: port))")
        }
        try await ServiceRunner.run([RedisService(client: client), gateway], logger: logger)
    }
}

/// `headway worker`
struct WorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker",
        abstract: "Take jobs from queues and run a command for each.",
        usage: "headway worker --redis URL --queue Q [--queue Q2] [--pipeline NAME] [options] -- CMD ARG…"
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @OptionGroup var gateway: GatewayOptions
    @Option(name: .customLong("queue"), parsing: .singleValue, help: "Queue to serve; may be repeated, the most important first.")
    var queues: [String] = []
    @Option(help: "Pipeline of jobs that name one this worker does not know.") var pipeline: String?
    @Option(help: "Name of this worker.") var name: String?
    @Option(help: "Jobs run at the same time.") var concurrency: String?
    @Option(
        name: .customLong("prefer"),
        parsing: .singleValue,
        help: ArgumentHelp("Labels of this worker, e.g. of models it keeps loaded; may be repeated.", valueName: "a,b")
    )
    var labels: [String] = []
    @Option(help: ArgumentHelp("Directory for inputs and outputs of running jobs.", valueName: "dir")) var workDir: String?
    @Option(help: "Progress writes per second and job, at most.") var updateRate: String?
    @Option(help: "On shutdown, time for running jobs to finish, e.g. 30s.") var shutdownGrace: String?
    @Option(help: "Time between SIGTERM and SIGKILL for a command, e.g. 10s.") var cancelGrace: String?
    @Option(help: "Silence after which this worker counts as lost, e.g. 20s.") var lease: String?
    @Option(help: "Pause between two signs of life, at most a third of the lease, e.g. 5s.") var heartbeat: String?
    @Option(help: "Longest run of a job that names no limit itself, e.g. 2h.") var maxRuntime: String?
    @Option(help: "Stop a job that makes no progress for so long, e.g. 10m.") var stallKill: String?
    @Option(help: ArgumentHelp("Most bytes of files that a job may have, e.g. 20G.", valueName: "size")) var jobQuota: String?
    @Option(help: "Follow progress bars in the command's output: auto or off.") var bars: String?
    @Flag(help: "Give the command a terminal for its output.") var pty = false
    @Option(help: ArgumentHelp("YAML file with further pipelines.", valueName: "file")) var pipelines: String?
    @Argument(parsing: .postTerminator, help: "After --: what to run for each job.") var command: [String] = []

    func run() async throws {
        let settings = try common.reader(
            redis.flags + [
                gateway.flag, .init(Settings.workerQueues, queues), .init(Settings.workerPipeline, pipeline),
                .init(Settings.workerName, name), .init(Settings.concurrency, concurrency), .init(Settings.workDirectory, workDir),
                .init(Settings.workerPrefer, labels.flatMap { $0.split(separator: ",").map(String.init) }),
                .init(Settings.updateRate, updateRate), .init(Settings.workerGrace, shutdownGrace), .init(Settings.pipelines, pipelines),
                .init(Settings.cancelGrace, cancelGrace), .init(Settings.lease, lease), .init(Settings.heartbeat, heartbeat),
                .init(Settings.maxRuntime, maxRuntime), .init(Settings.stallKill, stallKill), .init(Settings.jobQuota, jobQuota),
                .init(Settings.readsBars, bars), .init(Settings.usesTerminal, pty), .init(Settings.workerCommand, command),
            ]
        )
        let logger = try Logs.bootstrap(settings, label: "headway.worker")
        // One loop and one connection for everything but the wait for work, which has a connection of its own.
        let session = try RedisSession(settings, logger: logger)
        let client = session.client(on: MultiThreadedEventLoopGroup.singleton.next())
        let worker = try WorkerRole(
            settings,
            command: settings.optional(Settings.workerCommand) ?? [],
            context: session.context(client)
        ) { Output.standard.line($0) }
        try await ServiceRunner.run([RedisService(client: client), worker], logger: logger)
    }
}

extension ListenAddress {
    static func url(host: String, port: Int) -> String {
        "http://\(host.contains(":") ? "[\(host)]" : host):\(port)"
    }
}
