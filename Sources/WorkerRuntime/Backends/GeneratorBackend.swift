import Glibc
import JobStore
public import ProgressCore

/// What a worker drives for each job: a subprocess, a server on the network, or Swift code.
public protocol GeneratorBackend: Sendable {
    /// Runs one job to its end and tells `events` what happens on the way.
    ///
    /// Cancelling the task stops the job: the call returns, by throwing `CancellationError`, only when nothing of the
    /// job runs any more, and within the backend's own grace.
    ///
    /// - Throws: `BackendError` when the job failed, `CancellationError` when it was stopped.
    func run(job: BackendJob, events: BackendEvents) async throws -> BackendResult

    /// Whether a job could be started now, for a worker that begins or had trouble; cheap, and without effect.
    func check() throws(BackendError)

    /// Whether its jobs read and write files: without, no directories are made for them, and inputs are an error of the job.
    var usesFiles: Bool { get }

    /// Whether a call may hold its thread for more than some microseconds; one that never does runs beside the worker's connection,
    /// which saves changes of thread, and would hold up its heartbeats if it did.
    var mayBlock: Bool { get }
}

extension GeneratorBackend {
    public func check() throws(BackendError) {}
    public var usesFiles: Bool { true }
    public var mayBlock: Bool { true }
}

/// One job as a backend sees it.
public struct BackendJob: Sendable, Hashable {
    public let id: JobID
    public let attempt: Int
    public let pipeline: String
    /// What the worker knows of that pipeline: its stages, and how output is read.
    public let definition: Pipeline
    /// The submitter's parameters, a JSON object.
    public let paramsJSON: String
    /// Absolute paths of directories of this job alone: what it may read, and where its results go. Empty for a backend that uses no
    /// files.
    public let inputDirectory: String
    public let outputDirectory: String
    /// W3C Trace Context of the submit, to be carried on.
    public let traceparent: String?

    public init(
        id: JobID,
        attempt: Int,
        pipeline: String,
        definition: Pipeline? = nil,
        paramsJSON: String,
        inputDirectory: String,
        outputDirectory: String,
        traceparent: String? = nil
    ) {
        self.id = id
        self.attempt = attempt
        self.pipeline = pipeline
        self.definition = definition ?? Pipeline(name: pipeline, stages: [])
        self.paramsJSON = paramsJSON
        self.inputDirectory = inputDirectory
        self.outputDirectory = outputDirectory
        self.traceparent = traceparent
    }
}

/// How a job ended well.
public struct BackendResult: Sendable, Hashable {
    /// A JSON object, validated, or nil when the generator had nothing to say.
    public var resultJSON: String?

    public init(resultJSON: String? = nil) {
        self.resultJSON = resultJSON
    }
}

/// What a backend has to tell while a job runs.
public enum BackendEvent: Sendable, Hashable {
    case progress(ProgressUpdate)
    /// What the job is going to do.
    case plan([PlannedStage])
    /// What kind of job it is and whether models have to be loaded, where it knows better than its submitter.
    case hints(jobClass: String?, isCold: Bool?)
    /// A line for the job's log; `stream` is `stdout`, `stderr`, `script` (said on purpose) or `headway`.
    case log(stream: String, text: String)
    /// Log lines that were dropped since the last event of this kind.
    case logDropped(Int)
    /// An image in the output directory, by its path relative to it.
    case preview(path: String)
}

/// Where a backend puts its events. May be called from any thread; never blocks.
public struct BackendEvents: Sendable {
    private let receive: @Sendable (BackendEvent) -> Void

    public init(_ receive: @escaping @Sendable (BackendEvent) -> Void) {
        self.receive = receive
    }

    public func send(_ event: BackendEvent) { receive(event) }
}

/// Why a job failed, as its watchers read it.
public struct BackendError: Error, Sendable, Hashable, CustomStringConvertible {
    /// snake_case, e.g. `generator_failed`; a generator may bring its own.
    public var code: String
    public var message: String
    /// False: no retry helps.
    public var isRecoverable: Bool
    /// The work did not begin, for a reason that lies with this machine: the job is handed back and costs no attempt.
    public var didNotStart = false

    public init(code: String, message: String, isRecoverable: Bool) {
        self.code = code
        self.message = message
        self.isRecoverable = isRecoverable
    }

    public var description: String { "\(code): \(message)" }

    var jobError: JobError { JobError(code: code, message: message, isRecoverable: isRecoverable) }
}

extension BackendError {
    /// The worker has inputs to fetch and nowhere to fetch them from: its configuration is wrong, not the job.
    static let noGatewayCode = "no_gateway"

    static func generatorFailed(status: Int32, lastLine: String) -> BackendError {
        BackendError(
            code: "generator_failed",
            message: withLine("the generator exited with status \(status)", lastLine),
            isRecoverable: true
        )
    }

    static func generatorKilled(signal: Int32, lastLine: String) -> BackendError {
        BackendError(
            code: "generator_killed",
            message: withLine("the generator was ended by signal \(signal)", lastLine),
            isRecoverable: true
        )
    }

    static func generatorNotFound(_ name: String, _ reason: String) -> BackendError {
        BackendError(
            code: "generator_not_found",
            message: "the worker cannot run '\(name)': \(reason)",
            isRecoverable: false
        ).beforeStart
    }

    static func system(_ what: String, errno number: Int32) -> BackendError {
        if number == ENOSPC || number == EDQUOT { return diskFull(what).beforeStart }
        return BackendError(code: "worker_resources", message: "\(what): \(describe(errno: number))", isRecoverable: true).beforeStart
    }

    private var beforeStart: BackendError {
        var error = self
        error.didNotStart = true
        return error
    }

    private static func withLine(_ text: String, _ line: String) -> String { line.isEmpty ? text : "\(text): \(line)" }
}
