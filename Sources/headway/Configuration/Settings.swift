import JobStore
import Logging
import Telemetry

/// The table of all settings: the one place where a flag, an environment name, a key of the file and a default are spelled.
enum Settings {
    // MARK: Everybody

    static let logLevel = Setting<Logger.Level>(
        "log.level",
        flag: "--log-level",
        default: .scalar("info"),
        allowed: "one of " + Logger.Level.allCases.map(\.rawValue).joined(separator: ", "),
        help: "Least important log line on stderr."
    ) { raw in
        guard case .scalar(let text) = raw else { return nil }
        return Logger.Level(rawValue: text)
    }
    static let logFormat = Setting<LineLogHandler.Format>(
        "log.format",
        flag: "--log-format",
        default: .scalar("text"),
        allowed: "one of " + LineLogHandler.Format.allCases.map(\.rawValue).joined(separator: ", "),
        help: "Log lines for people, or one JSON object per line."
    ) { raw in
        guard case .scalar(let text) = raw else { return nil }
        return LineLogHandler.Format(rawValue: text)
    }
    static let pipelines = Setting.text(
        "pipelines",
        flag: "--pipelines",
        allowed: "a path",
        help: "YAML file with pipelines; adds to the built-in ones, a same name replaces."
    )

    // MARK: Redis

    static let redisURL = Setting.text(
        "redis.url",
        flag: "--redis",
        default: "redis://127.0.0.1:6379",
        allowed: "redis://[USER:PASSWORD@]HOST[:PORT][/DB] or unix:///PATH",
        help: "The Redis that holds queues and progress.",
        where: { $0.hasPrefix("redis://") || $0.hasPrefix("unix://") }
    )
    /// No flag: a command line can be read by everyone on the machine.
    static let redisPassword = Setting.text(
        "redis.password",
        flag: nil,
        isSecret: true,
        help: "Password for Redis; wins over one in the URL."
    )
    static let redisPrefix = Setting.text(
        "redis.prefix",
        flag: "--prefix",
        default: "headway",
        allowed: "1 to 32 characters of a-z, 0-9, _ and -",
        help: "First part of every key, so that several installations can share one Redis.",
        where: { (1...32).contains($0.utf8.count) && $0.utf8.allSatisfy(isNameByte) }
    )

    // MARK: Gateway

    static let listen = Setting.listen(
        "gateway.listen",
        flag: "--listen",
        default: "127.0.0.1:8080",
        help: "Address and port of the gateway's listener."
    )
    static let gatewayData = Setting.text(
        "gateway.data",
        flag: "--data",
        default: ".headway/data",
        allowed: "a path",
        help: "Directory of uploads and result files; made when absent."
    )
    static let insecure = Setting.bool(
        "gateway.insecure",
        flag: "--insecure",
        help: "Allow a listener that is not on loopback without authentication."
    )
    static let anyQueue = Setting.bool(
        "gateway.any_queue",
        flag: "--any-queue",
        help: "Accept jobs for queues that no worker and no setting has named."
    )
    static let gatewayQueues = Setting.texts(
        "gateway.queues",
        flag: "--known-queue",
        default: [],
        allowed: queueRule,
        help: "Queues that exist even while no worker serves them.",
        where: isQueueName
    )
    static let allowedHosts = Setting.texts(
        "gateway.allowed_hosts",
        flag: "--allow-host",
        default: [],
        allowed: "a host name or address, without scheme",
        help: "Further values of the Host header that a loopback listener accepts.",
        where: { !$0.contains("/") }
    )
    static let allowedOrigins = Setting.texts(
        "gateway.allowed_origins",
        flag: "--allow-origin",
        default: [],
        allowed: "an origin such as https://app.example.com",
        help: "Web pages of other origins that may use the gateway.",
        where: { $0.hasPrefix("http://") || $0.hasPrefix("https://") }
    )
    static let drain = Setting.duration(
        "gateway.drain_window",
        flag: "--drain-window",
        default: "5s",
        in: .zero ... .seconds(600),
        help: "Window over which watchers are sent away on shutdown, each at its own moment."
    )

    // MARK: Worker

    static let workerQueues = Setting.texts(
        "worker.queues",
        flag: "--queue",
        allowed: queueRule,
        help: "Queues to serve, the most important first.",
        where: isQueueName
    )
    static let workerPipeline = Setting.text(
        "worker.pipeline",
        flag: "--pipeline",
        default: "generic",
        allowed: "the name of a pipeline",
        help: "Pipeline of jobs that name one this worker does not know."
    )
    static let workerName = Setting.text(
        "worker.name",
        flag: "--name",
        allowed: "1 to 64 characters of A-Z, a-z, 0-9, ., _ and -",
        help: "Name of this worker; host name and process id when not set.",
        where: { (1...64).contains($0.utf8.count) && $0.utf8.allSatisfy { isNameByte($0) || $0 == 46 || (65...90).contains($0) } }
    )
    static let concurrency = Setting.integer(
        "worker.concurrency",
        flag: "--concurrency",
        default: 1,
        in: 1...256,
        help: "Jobs run at the same time."
    )
    static let workerPrefer = Setting.texts(
        "worker.prefer",
        flag: "--prefer",
        default: [],
        allowed: labelRule,
        help: "Labels of this worker, e.g. of models it keeps loaded: jobs that prefer one of them come first, within bounds.",
        where: StoreLimits.isLabel
    )
    static let workDirectory = Setting.text(
        "worker.work_dir",
        flag: "--work-dir",
        default: ".headway/work",
        allowed: "a path",
        help: "Directory for the inputs and outputs of running jobs; made when absent."
    )
    static let updateRate = Setting.number(
        "worker.update_rate",
        flag: "--update-rate",
        default: "4",
        in: 0.1...50,
        help: "Progress writes per second and job, at most."
    )
    static let workerGrace = Setting.duration(
        "worker.shutdown_grace",
        flag: "--shutdown-grace",
        default: "30s",
        in: .zero ... .seconds(3600),
        help: "On shutdown, time for running jobs to finish before they are handed back."
    )
    static let lease = Setting.duration(
        "worker.lease",
        flag: "--lease",
        default: "20s",
        in: .milliseconds(500) ... .seconds(3600),
        help: "Silence after which a worker counts as lost and its jobs go to another."
    )
    static let heartbeat = Setting.duration(
        "worker.heartbeat",
        flag: "--heartbeat",
        default: "5s",
        in: .milliseconds(100) ... .seconds(1200),
        help: "Pause between two signs of life; at most a third of the lease."
    )
    static let cancelGrace = Setting.duration(
        "worker.cancel_grace",
        flag: "--cancel-grace",
        default: "10s",
        in: .zero ... .seconds(600),
        help: "Time between SIGTERM and SIGKILL for a command that is to stop."
    )
    static let maxRuntime = Setting.duration(
        "worker.max_runtime",
        flag: "--max-runtime",
        default: "24h",
        in: .seconds(1) ... .seconds(30 * 86_400),
        help: "Longest run of a job that names no limit itself."
    )
    static let stallKill = Setting.duration(
        "worker.stall_kill",
        flag: "--stall-kill",
        default: nil,
        in: .seconds(1) ... .seconds(30 * 86_400),
        help: "Stop a job that makes no progress for so long; off when not set."
    )
    static let jobQuota = Setting.bytes(
        "worker.job_quota",
        flag: "--job-quota",
        in: 1...(1 << 50),
        help: "Most bytes of files that a job may have, inputs included; no bound when not set."
    )
    static let readsBars = Setting<Bool>(
        "worker.bars",
        flag: "--bars",
        default: .scalar("auto"),
        allowed: "auto or off",
        help: "Follow progress bars in the command's output, until it writes progress of its own."
    ) { raw in
        switch raw {
        case .scalar("auto"): true
        case .scalar("off"): false
        default: nil
        }
    }
    static let usesTerminal = Setting.bool(
        "worker.pty",
        flag: "--pty",
        help: "Give the command a terminal for its output, for programs that draw bars nowhere else."
    )
    /// No flag and no environment form: it stands after `--`, or as a YAML list; a string could not be split safely.
    static let workerCommand = Setting.texts(
        "worker.command",
        flag: "--",
        allowed: "a list: the program and its arguments",
        help: "What to run for each job."
    )

    // MARK: Clients

    static let gatewayURL = Setting.text(
        "gateway.url",
        flag: "--gateway",
        default: "http://127.0.0.1:8080",
        allowed: "http://HOST[:PORT] or https://HOST[:PORT]",
        help: "The gateway that clients and workers talk to.",
        where: { $0.hasPrefix("http://") || $0.hasPrefix("https://") }
    )
    static let json = Setting.bool("client.json", flag: "--json", help: "Print JSON for programs instead of text for people.")
    static let lostAfter = Setting.duration(
        "client.lost_after",
        flag: "--lost-after",
        default: "60s",
        in: .seconds(1) ... .seconds(86_400),
        help: "Give up a watch after so long without any word from the gateway."
    )
    static let cancelReason = Setting.text(
        "cancel.reason",
        flag: "--reason",
        allowed: "text",
        help: "Why; shown to everyone who watches."
    )
    static let drainWorkers = Setting.texts(
        "workers.drain",
        flag: "--drain",
        default: [],
        allowed: "the name of a worker",
        help: "Workers that are to finish their jobs, take no more and end."
    )
    static let logsLimit = Setting.integer("logs.limit", flag: "--limit", default: 200, in: 1...10_000, help: "Newest lines to print.")

    // MARK: Dev

    static let devData = Setting.text(
        "dev.data",
        flag: "--data",
        default: ".headway",
        allowed: "a path",
        help: "Directory of everything `headway dev` keeps."
    )
    static let devNoWorker = Setting.bool("dev.no_worker", flag: "--no-worker", help: "Start Redis and the gateway only.")
    static let devRedisServer = Setting.text(
        "dev.redis_server",
        flag: "--redis-server",
        default: "redis-server",
        allowed: "a program name or path",
        help: "The redis-server to start."
    )

    /// In the order of the documentation.
    static let all: [SettingInfo] = [
        logLevel.info, logFormat.info, pipelines.info, redisURL.info, redisPassword.info, redisPrefix.info, listen.info, gatewayURL.info,
        gatewayData.info, insecure.info, anyQueue.info, gatewayQueues.info, allowedHosts.info, allowedOrigins.info, drain.info,
        workerQueues.info, workerPipeline.info, workerName.info, concurrency.info, workerPrefer.info, workDirectory.info, updateRate.info,
        workerGrace.info, cancelGrace.info, lease.info, heartbeat.info, maxRuntime.info, stallKill.info, jobQuota.info, readsBars.info,
        usesTerminal.info, workerCommand.info, json.info, lostAfter.info,
        submitQueue.info,
        submitPipeline.info, submitParams.info,
        submitInputs.info, submitID.info, submitPriority.info, submitPrefer.info, submitClass.info, submitCold.info,
        submitParent.info, submitChildren.info, submitWatch.info,
        submitOutput.info, cancelReason.info,
        drainWorkers.info, logsLimit.info, devData.info, devNoWorker.info, devRedisServer.info,
    ]

    /// Names under our prefix that are no settings: a worker gives them to its jobs' commands, and `HEADWAY_CONFIG` names
    /// the settings file itself.
    static let foreignEnvironmentNames: Set<String> = [
        "HEADWAY_CONFIG", "HEADWAY_JOB_ID", "HEADWAY_ATTEMPT", "HEADWAY_PROGRESS_FD", "HEADWAY_INPUT_DIR", "HEADWAY_OUTPUT_DIR",
    ]

    static let labelRule = "a label: 1 to 64 characters of A-Z, a-z, 0-9, ., _ and -"
    static let queueRule = "a queue name: 1 to 64 characters of a-z, 0-9 and -"

    private static func isNameByte(_ byte: UInt8) -> Bool {
        (97...122).contains(byte) || (48...57).contains(byte) || byte == 45 || byte == 95
    }

    static func isQueueName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count) && text.utf8.allSatisfy { isNameByte($0) && $0 != 95 }
    }
}
