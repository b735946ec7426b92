/// Every bound of the worker room, with its reason.
public enum WorkerLimits {
    // MARK: A generator's output

    /// One JSON line on the progress descriptor; as large as the largest result a job may have.
    public static let progressLineBytes = 64 * 1024
    /// One log line as kept; the rest of a longer one is dropped.
    public static let logLineBytes = 2048
    /// Log lines kept per second, and at once after a silence; more are dropped and counted.
    public static let logLinesPerSecond = 50
    public static let logLinesBurst = 200
    /// Lines that are no JSON objects: this many are shown among the log lines, the rest only counted.
    public static let shownGarbageLines = 5
    /// Read at once from a pipe, the capacity of a Linux pipe.
    public static let readBytes = 64 * 1024
    /// Progress bars on the screen at once; tqdm itself draws twenty.
    public static let bars = 20
    /// Lines per second that are held against a pipeline's patterns, and at once after a silence; more go by unread, so that a flood
    /// of output does not slow its generator down.
    public static let patternLinesPerSecond = 2000
    public static let patternLinesBurst = 5000
    /// The last state of a bar in the log: 120 columns, most of them glyphs of three bytes.
    public static let barLogBytes = 400
    /// Nesting of JSON values.
    public static let jsonDepth = 64
    /// Bytes of the last line of stderr kept for the error message.
    public static let lastLineBytes = 400

    // MARK: A generator's life

    /// After its leader has gone well: how long descendants may still write before the process group is killed.
    static let drainMs = 2000
    /// After SIGKILL: how long a process may hang in the kernel before it is given up, unreaped.
    static let unkillableMs = 60_000
    /// Signals that `headway run` passes on to its command; with the next one it is stopped, after its grace by force.
    static let passedSignals = 3
    /// How long `headway run` waits for its job before it starts the command without one.
    static let producerOpenWait: Duration = .seconds(2)
    /// How long `headway run` repeats the end of its job.
    static let producerEndRetry: Duration = .seconds(10)
    /// Size of a generator's terminal: as wide as tqdm is told to draw, and high enough for its twenty nested bars.
    static let terminalColumns = 120
    static let terminalRows = 30

    // MARK: A worker

    /// Jobs at once in one worker process.
    public static let concurrency = 256
    /// Queues served by one worker.
    public static let queues = 64
    /// States that wait for Redis: one per phase or stage change, the newest of the rest.
    static let pendingMilestones = 16
    /// Pipelines a worker remembers to have run.
    static let seenPipelines = 256
    /// The furthest that a timer is set: 34 years, which nanoseconds can still count.
    static let longestTimerMs = 1 << 40
    /// How long learned durations that were read are used; and of how many pipelines.
    static let learnedCacheMs = 10_000
    static let learnedPipelines = 64
    /// A job that took less is short: of these one in so many milliseconds teaches, per pipeline.
    static let shortJobMs = 250
    /// Before the first report of a job that says nothing itself, its heartbeats and its limits: one that ends sooner costs no command
    /// and no timer.
    static let firstReportMs = 20
    /// Log lines that wait for Redis; older ones are dropped and counted.
    static let pendingLogLines = 500
    /// How long a `finish`, `fail` or `release` is repeated: by then the lease was lost long ago and `reap` has decided.
    static let endRetry: Duration = .seconds(600)
    /// How long a claim with one nonce is repeated; Redis remembers a nonce for two minutes.
    static let claimRetry: Duration = .seconds(100)
    /// For a bell that is always rung: a slot that became free.
    static let longestWait: Duration = .seconds(10)
    /// Shortest block for work.
    static let shortestWait: Duration = .milliseconds(10)
    /// The same when something is overdue, which should never be so for long.
    static let shortestOverdueWait: Duration = .milliseconds(50)
    /// Part of the longest block that chance takes off.
    static let blockJitter = 0.04
    /// Back-off while Redis does not answer.
    static let retryDelayMs = 100...5000
    /// Pause of a worker whose jobs fail at once, one after another, or whose command cannot be started.
    static let crashLoopDelayMs = 500...30_000
    /// A job that failed within this time counts as failed at once: loading a large library takes seconds.
    static let instantFailureMs = 5000
    /// Failures at once, in a row, before the worker slows down.
    static let instantFailures = 3
    /// Between two runs of `reap` on all queues by a worker that claims nothing because all its slots are taken.
    static let busyReapInterval: Duration = .seconds(10)
    /// Between two runs of `reap` by one that claims, one queue at a time.
    static let idleReapInterval: Duration = .seconds(60)
    /// Silence after which the subscription for hints is probed. A hint that is lost costs a heartbeat, so it may be long.
    static let hintProbe: Duration = .seconds(60)
    /// Shortest time between two writes of a worker's record: jobs that come and go are joined.
    static let registrationGap: Duration = .seconds(1)
    /// Before the record is tried again when Redis did not take it.
    static let registrationRetry: Duration = .seconds(5)
    /// Bytes of the reason that a worker shows for its pause.
    static let reasonBytes = 200

    // MARK: The machine

    /// How long `nvidia-smi` may take: without persistence mode the driver starts first.
    static let gpuQueryTime: Duration = .seconds(15)
    /// Between two looks at the GPUs' memory.
    static let gpuRefresh: Duration = .seconds(300)
    /// What it may print.
    static let gpuQueryBytes = 64 * 1024
    /// GPUs shown per worker.
    static let gpus = 32
    /// Bytes of a GPU's name.
    static let gpuNameBytes = 100

    // MARK: Files

    /// One input, and one output.
    public static let fileBytes = 2 * 1024 * 1024 * 1024
    /// Inputs of one job.
    public static let inputs = 64
    /// Outputs of one job.
    public static let outputs = 256
    /// Name of a file, as file systems have it.
    public static let fileNameBytes = 255
    /// Files and directories of one job, where it has a quota.
    public static let jobEntries = 100_000
    /// A disk with less room than that counts as full: programs write in blocks of about that size, and the last one did not fit.
    static let fullDiskBytes = 64 * 1024
    /// Between two counts of a job's files, at first and later.
    static let firstQuotaPause: Duration = .milliseconds(250)
    static let quotaPause: Duration = .seconds(2)
    /// One transfer, and one attempt at a request.
    static let transferTime: Duration = .seconds(600)
    /// Tries of one transfer.
    static let transferTries = 5
    /// Body of an answer that is not a file.
    static let replyBytes = 64 * 1024
    /// Between two previews of one job.
    static let previewIntervalMs = 1000
}
