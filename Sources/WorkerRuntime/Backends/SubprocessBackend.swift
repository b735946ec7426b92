import Glibc
import JobStore
import ProgressCore

/// Runs a command per job, in a session of its own.
///
/// The job's JSON comes on the command's stdin, then end of file. The environment names `HEADWAY_JOB_ID`,
/// `HEADWAY_ATTEMPT`, `HEADWAY_INPUT_DIR`, `HEADWAY_OUTPUT_DIR` and `HEADWAY_PROGRESS_FD`, a descriptor that takes JSON
/// lines (`GeneratorLine`). stdout and stderr become log lines. Exit status 0 is success. The command keeps the worker's
/// working directory, so that relative paths in it mean what they meant on the command line.
///
/// A stop is SIGTERM to the command and all its descendants, and SIGKILL after the grace. Nothing of the command outlives its job,
/// nor a worker that is killed: a guard process (`CProcess/guard.c`) sees to that.
public struct SubprocessBackend: GeneratorBackend {
    public let command: [String]
    /// From SIGTERM to SIGKILL.
    public let grace: Duration
    /// Follow the progress bars that the command draws on stdout and stderr.
    public let readsBars: Bool
    /// stdout and stderr are a terminal of 120 columns and 30 rows, for programs that draw bars nowhere else.
    public let usesTerminal: Bool
    private let environment: [String: String]

    /// - Parameters:
    ///   - command: program and arguments; the program is a path or a name to be found in `PATH`.
    ///   - grace: from SIGTERM to SIGKILL.
    ///   - readsBars: follow the progress bars that the command draws, until it writes progress of its own.
    ///   - usesTerminal: give the command a terminal for stdout and stderr, which are one stream then.
    ///   - environment: of the worker; variables that begin with `HEADWAY_` are not passed on, they may hold passwords.
    public init(
        command: [String],
        grace: Duration = .seconds(10),
        readsBars: Bool = true,
        usesTerminal: Bool = false,
        environment: [String: String]
    ) {
        self.command = command
        self.grace = grace
        self.readsBars = readsBars
        self.usesTerminal = usesTerminal
        self.environment = environment.filter { !$0.key.hasPrefix("HEADWAY_") }
    }

    /// Takes the environment of this process.
    public init(command: [String], grace: Duration = .seconds(10), readsBars: Bool = true, usesTerminal: Bool = false) {
        self.init(
            command: command,
            grace: grace,
            readsBars: readsBars,
            usesTerminal: usesTerminal,
            environment: Self.processEnvironment()
        )
    }

    /// Whether the program is there and may be run, for a worker that starts.
    public func check() throws(BackendError) {
        _ = try executable()
    }

    public func run(job: BackendJob, events: BackendEvents) async throws -> BackendResult {
        let stop = StopSwitch()
        let supervisor = ProcessSupervisor(
            executable: try executable(),
            arguments: Array(command.dropFirst()),
            environment: variables(of: job),
            input: Array(Self.input(of: job).utf8),
            graceMs: grace.wholeMilliseconds,
            usesTerminal: usesTerminal,
            stop: stop,
            events: events,
            pipeline: job.definition,
            readsBars: readsBars
        )
        let outcome = try await withTaskCancellationHandler {
            try Task.checkCancellation()
            return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Box, any Error>) in
                let isStarted = startThread {
                    continuation.resume(with: Result { () throws(BackendError) in Box(outcome: try supervisor.run()) }.mapError { $0 })
                }
                if !isStarted {
                    continuation.resume(throwing: BackendError.system("no thread for the generator", errno: EAGAIN))
                }
            }
        } onCancel: {
            stop.ask()
        }
        return try result(of: outcome.outcome)
    }

    private struct Box: Sendable {
        let outcome: ProcessSupervisor.Outcome
    }

    private func result(of outcome: ProcessSupervisor.Outcome) throws -> BackendResult {
        if outcome.wasStopped { throw CancellationError() }
        switch outcome.exit {
        case .status(0): return BackendResult(resultJSON: outcome.resultJSON)
        case .status(let status): throw outcome.error ?? .generatorFailed(status: status, lastLine: outcome.lastErrorLine)
        case .signal(let signal): throw outcome.error ?? .generatorKilled(signal: signal, lastLine: outcome.lastErrorLine)
        case .unknown: throw outcome.error ?? .generatorKilled(signal: SIGKILL, lastLine: outcome.lastErrorLine)
        }
    }

    // MARK: What the command gets

    private static func input(of job: BackendJob) -> String {
        """
        {"job":\(JSONText.quoted(job.id.text)),"attempt":\(job.attempt),"pipeline":\(JSONText.quoted(job.pipeline)),\
        "params":\(job.paramsJSON),"input_dir":\(JSONText.quoted(job.inputDirectory)),\
        "output_dir":\(JSONText.quoted(job.outputDirectory))}

        """
    }

    private func variables(of job: BackendJob) -> [String] {
        var variables = [
            // A wrapped script should say what it does when it does it, in lines of a usable length (tqdm reads TQDM_*).
            "PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "0.25", "TQDM_NCOLS": "120",
        ]
        if usesTerminal {
            variables["COLUMNS"] = String(WorkerLimits.terminalColumns)
            variables["LINES"] = String(WorkerLimits.terminalRows)
            // Colours would only be taken out again.
            variables["NO_COLOR"] = "1"
        }
        variables.merge(environment) { _, given in given }
        // Not the worker's terminal, if it has one. A plain xterm: bars are drawn, and lines may be drawn anew.
        if usesTerminal { variables["TERM"] = "xterm" }
        variables["HEADWAY_JOB_ID"] = job.id.text
        variables["HEADWAY_ATTEMPT"] = String(job.attempt)
        // The name that tracing tools read (OpenTelemetry, environment variables as context carriers).
        if let traceparent = job.traceparent { variables["TRACEPARENT"] = traceparent }
        variables["HEADWAY_INPUT_DIR"] = job.inputDirectory
        variables["HEADWAY_OUTPUT_DIR"] = job.outputDirectory
        variables["HEADWAY_PROGRESS_FD"] = "3"
        return variables.filter { !$0.value.utf8.contains(0) }.map { "\($0.key)=\($0.value)" }.sorted()
    }

    private func executable() throws(BackendError) -> String {
        guard let name = command.first, !name.isEmpty else {
            throw .generatorNotFound("", "the command is empty")
        }
        guard !command.contains(where: { $0.utf8.contains(0) }) else { throw .generatorNotFound(name, "the command holds a zero byte") }
        if name.utf8.contains(UInt8(ascii: "/")) {
            if let problem = Self.problem(with: name) { throw .generatorNotFound(name, problem) }
            return name
        }
        for directory in (environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":") {
            let path = "\(directory)/\(name)"
            if Self.problem(with: path) == nil { return path }
        }
        throw .generatorNotFound(name, "it is not in PATH")
    }

    private static func problem(with path: String) -> String? {
        var info = stat()
        guard stat(path, &info) == 0 else { return describe(errno: errno) }
        guard info.st_mode & S_IFMT == S_IFREG else { return "it is not a file" }
        return access(path, X_OK) == 0 ? nil : "it is not executable"
    }

    /// `environ` as a dictionary.
    static func processEnvironment() -> [String: String] {
        var result: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2, !parts[0].isEmpty { result[String(parts[0])] = String(parts[1]) }
            entry += 1
        }
        return result
    }
}
