import Glibc
import JobStore
import ProgressCore

/// What a worker is told from outside; it reads no flags, environment or files itself.
public struct WorkerConfiguration: Sendable {
    /// Unique among living workers; it names the record, the leases and the directory of this one.
    public var name: String
    /// In order of preference: a later queue is looked at when the earlier ones are empty.
    public var queues: [String]
    /// What this worker has at hand (a loaded model, say): jobs that prefer one of these come to it first. At most 8.
    public var labels: [String]
    /// Pipeline for jobs that name one this worker does not know.
    public var pipeline: String
    /// Jobs at once.
    public var concurrency: Int
    /// Where inputs are fetched and outputs delivered, e.g. `http://127.0.0.1:8080`; nil or empty: outputs stay where they are,
    /// and jobs with inputs fail.
    public var gatewayURL: String?
    /// Directory for the files of running jobs, made when absent.
    public var workDirectory: String
    /// Most progress writes per second and job.
    public var updatesPerSecond: Double
    /// How long running jobs may go on after SIGTERM, before they are stopped and handed back.
    public var shutdownGrace: Duration
    /// Longest run of a job that does not name a limit.
    public var maxRuntime: Duration
    /// A job that makes no progress for so long is stopped and fails; nil: none is.
    public var stallKill: Duration?
    /// Bytes of all files that a job may have in its directory, inputs included; nil: no bound.
    public var jobQuotaBytes: Int?
    /// Shown with the worker.
    public var host: String
    public var version: String
    /// What the backend is called, for people.
    public var backend: String = "command"
    /// Path of `nvidia-smi`; nil: the worker knows of no GPU.
    public var gpuTool: String?
    /// The value of `CUDA_VISIBLE_DEVICES`: which of the GPUs it shows; nil: all.
    public var visibleGPUs: String?
    /// Time, names and chance.
    public var environment: WorkerEnvironment

    public init(
        name: String = "",
        queues: [String] = [],
        labels: [String] = [],
        pipeline: String = "generic",
        concurrency: Int = 1,
        gatewayURL: String? = nil,
        workDirectory: String = "",
        updatesPerSecond: Double = 4,
        shutdownGrace: Duration = .seconds(30),
        maxRuntime: Duration = .seconds(24 * 3600),
        stallKill: Duration? = nil,
        jobQuotaBytes: Int? = nil,
        host: String = WorkerEnvironment.hostName(),
        version: String = "",
        environment: WorkerEnvironment = WorkerEnvironment()
    ) {
        self.name = name
        self.queues = queues
        self.labels = labels
        self.pipeline = pipeline
        self.concurrency = concurrency
        self.gatewayURL = gatewayURL
        self.workDirectory = workDirectory
        self.updatesPerSecond = updatesPerSecond
        self.shutdownGrace = shutdownGrace
        self.maxRuntime = maxRuntime
        self.stallKill = stallKill
        self.jobQuotaBytes = jobQuotaBytes
        self.host = host
        self.version = version
        self.environment = environment
    }
}

/// Where a worker gets time, names and chance from, so that tests can give their own.
public struct WorkerEnvironment: Sendable {
    /// A clock for durations, in milliseconds. A worker asks for no time of day: that is Redis's, whatever the machine's clock says.
    public var nowMs: @Sendable () -> Int
    /// A name for one attempt to claim, never the same twice.
    public var makeNonce: @Sendable () -> String
    /// 0..<1, for jitter.
    public var random: @Sendable () -> Double

    public init(
        nowMs: @escaping @Sendable () -> Int = { WorkerEnvironment.steadyClockMs() },
        makeNonce: @escaping @Sendable () -> String = { WorkerEnvironment.randomNonce() },
        random: @escaping @Sendable () -> Double = { WorkerEnvironment.randomUnit() }
    ) {
        self.nowMs = nowMs
        self.makeNonce = makeNonce
        self.random = random
    }

    public static func steadyClockMs() -> Int { monotonicMs() }

    /// In 0..<1.
    public static func randomUnit() -> Double {
        var pool = PooledRandom()
        return Double.random(in: 0..<1, using: &pool)
    }

    /// 128 random bits.
    public static func randomNonce() -> String {
        let words = [PooledRandom().next(), PooledRandom().next()]
        return String(unsafeUninitializedCapacity: 26) { text in
            for index in 0..<26 {
                // Thirteen times five bits of each, of which the last has four.
                let digit = UInt8(truncatingIfNeeded: words[index / 13] >> UInt64(index % 13 * 5) & 31)
                text.initializeElement(at: index, to: digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
            }
            return 26
        }
    }

    public static func hostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, 255) == 0 else { return "unknown" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Why a worker does not start, in words that name what to change.
public struct WorkerError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case invalidConfiguration
        case workDirectory
        /// The backend could not start a job: the command is not there, say.
        case backend
    }
    public let code: Code
    public let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

extension WorkerConfiguration {
    /// Checks everything that can be checked without Redis.
    func validate() throws(WorkerError) {
        func need(_ holds: Bool, _ message: String) throws(WorkerError) {
            if !holds { throw WorkerError(.invalidConfiguration, message) }
        }
        try need(
            (1...64).contains(name.utf8.count) && name.utf8.allSatisfy(FileName.isPlain) && name != "." && name != "..",
            "worker name: 1 to 64 characters of A-Z a-z 0-9 . _ - are needed"
        )
        try need((1...WorkerLimits.queues).contains(queues.count), "queues: 1 to \(WorkerLimits.queues) are needed")
        try need(Set(queues).count == queues.count, "queues: one is listed twice")
        try need(
            labels.count <= StoreLimits.labels && labels.allSatisfy(StoreLimits.isLabel),
            "prefer: at most \(StoreLimits.labels) labels of A-Z a-z 0-9 . _ - are allowed"
        )
        try need((1...WorkerLimits.concurrency).contains(concurrency), "concurrency: 1 to \(WorkerLimits.concurrency) is needed")
        try need(workDirectory.utf8.first == UInt8(ascii: "/") || !workDirectory.isEmpty, "work directory: a path is needed")
        try need(updatesPerSecond > 0 && updatesPerSecond <= ProgressLimits.reportsPerSecond, "update rate: more than 0 is needed")
        if let gatewayURL, !gatewayURL.isEmpty {
            try need(gatewayURL.hasPrefix("http://") || gatewayURL.hasPrefix("https://"), "gateway URL: http:// or https:// is needed")
        }
    }
}
