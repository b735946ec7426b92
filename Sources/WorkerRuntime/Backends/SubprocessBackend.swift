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
    public var command: [String] { program.command }
    /// From SIGTERM to SIGKILL.
    public let grace: Duration
    /// Follow the progress bars that the command draws on stdout and stderr.
    public let readsBars: Bool
    /// stdout and stderr are a terminal of 120 columns and 30 rows, for programs that draw bars nowhere else.
    public let usesTerminal: Bool
    private let program: GeneratorCommand

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
        program = GeneratorCommand(command, environment: environment)
        self.grace = grace
        self.readsBars = readsBars
        self.usesTerminal = usesTerminal
    }

    /// Takes the environment of this process.
    public init(command: [String], grace: Duration = .seconds(10), readsBars: Bool = true, usesTerminal: Bool = false) {
        self.init(
            command: command,
            grace: grace,
            readsBars: readsBars,
            usesTerminal: usesTerminal,
            environment: GeneratorCommand.processEnvironment()
        )
    }

    /// Whether the program is there and may be run, for a worker that starts.
    public func check() throws(BackendError) {
        _ = try program.executable()
    }

    public func run(job: BackendJob, events: BackendEvents) async throws -> BackendResult {
        let outcome = try await GeneratorCommand.supervise(
            ProcessSupervisor(
                executable: try program.executable(),
                arguments: program.arguments,
                environment: program.variables(terminal: terminal, adding: Self.variables(of: job)),
                input: .bytes(Array(Self.input(of: job).utf8)),
                graceMs: grace.wholeMilliseconds,
                terminal: terminal,
                stop: StopSwitch(),
                events: events,
                pipeline: job.definition,
                readsBars: readsBars
            )
        )
        return try result(of: outcome)
    }

    private func result(of outcome: ProcessSupervisor.Outcome) throws -> BackendResult {
        if outcome.wasStopped { throw CancellationError() }
        if let error = outcome.failure { throw error }
        return BackendResult(resultJSON: outcome.resultJSON)
    }

    // MARK: What the command gets

    private static func input(of job: BackendJob) -> String {
        """
        {"job":\(JSONText.quoted(job.id.text)),"attempt":\(job.attempt),"pipeline":\(JSONText.quoted(job.pipeline)),\
        "params":\(job.paramsJSON),"input_dir":\(JSONText.quoted(job.inputDirectory)),\
        "output_dir":\(JSONText.quoted(job.outputDirectory))}

        """
    }

    private var terminal: TerminalSize? { usesTerminal ? .standard : nil }

    private static func variables(of job: BackendJob) -> [String: String] {
        var variables = [
            "HEADWAY_JOB_ID": job.id.text, "HEADWAY_ATTEMPT": String(job.attempt), "HEADWAY_INPUT_DIR": job.inputDirectory,
            "HEADWAY_OUTPUT_DIR": job.outputDirectory,
        ]
        // The name that tracing tools read (OpenTelemetry, environment variables as context carriers).
        if let traceparent = job.traceparent { variables["TRACEPARENT"] = traceparent }
        return variables
    }
}
