/// Bounds of the gateway's HTTP side, each with its reason. The hub's own stand in `HubLimits`.
public struct GatewayLimits: Sendable {
    // MARK: Connections

    /// Open connections, streams included; the next one is closed at once. Each is a file descriptor.
    public var connections = 50_000
    /// Requests one connection may have sent ahead of its answers; browsers send none, proxies a few.
    public var pipelinedRequests = 16
    /// Pending connections in the kernel's queue: a storm of reconnects must not be refused.
    public var backlog = 4096
    /// Bytes per read of a socket: the most that one read can make us hold before limits are looked at.
    public var readBytes = 16 * 1024

    // MARK: Heads

    /// Request target. The longest of our own is 32 job ids of 128 bytes.
    public var targetBytes = 8 * 1024
    /// One header field.
    public var headerFieldBytes = 16 * 1024
    /// All header fields together, the target included.
    public var headerBytes = 32 * 1024
    public var headerFields = 100
    /// Parameters of a query: 32 jobs and a few more.
    public var queryParameters = 64

    // MARK: Bodies

    /// A JSON body: 256 KiB of params, its other fields, and room for white space.
    public var jsonBytes = 512 * 1024
    /// Levels of arrays and objects in a JSON body.
    public var jsonDepth = 64
    /// One uploaded file.
    public var uploadBytes = 64 * 1024 * 1024
    /// One result file.
    public var jobFileBytes = 256 * 1024 * 1024
    /// Result files of one job.
    public var jobFiles = 64
    /// Uploads one job may refer to.
    public var jobInputs = 32
    /// Uploads being received at once, over all connections: each holds a file open.
    public var concurrentUploads = 64
    /// Free space of the data directory's file system below which nothing more is taken in: Redis may write to the same disk.
    public var freeDiskBytes = 128 * 1024 * 1024
    /// How long uploads and result files are kept after they were last used.
    public var blobTTL = Duration.seconds(24 * 3600)
    /// Unfinished uploads of a process that died.
    public var unfinishedBlobTTL = Duration.seconds(3600)
    public var sweepInterval = Duration.seconds(600)
    /// Between two audits of all keys by whichever gateway; it mends what sweeps cannot see.
    public var auditInterval = Duration.seconds(900)
    /// Between a finding and the second look at it: sweeps, once a second, mend much themselves.
    public var auditConfirm = Duration.seconds(5)
    /// Between two steps of an audit, each about a millisecond of Redis: a million jobs take some minutes.
    public var auditPause = Duration.milliseconds(10)
    /// Findings of one audit that are logged.
    public var auditLogLines = 50
    /// Bytes per write of a file to a socket.
    public var fileChunkBytes = 128 * 1024

    // MARK: Waits

    /// From the first byte of a request to the end of its head.
    public var headTimeout = Duration.seconds(10)
    /// Between two requests of a connection, and before the first byte of the first.
    public var idleTimeout = Duration.seconds(60)
    /// For a whole JSON body.
    public var bodyTimeout = Duration.seconds(30)
    /// In each such window an upload must bring `uploadWindowBytes`.
    public var uploadWindow = Duration.seconds(30)
    public var uploadWindowBytes = 16 * 1024
    /// For a route to answer; above the longest long poll.
    public var answerTimeout = Duration.seconds(75)
    /// For the client to take the next bytes of an answer.
    public var sendTimeout = Duration.seconds(30)
    /// For a refused client to stop sending and read why, and how much of its bytes is thrown away meanwhile.
    public var lingerTimeout = Duration.seconds(2)
    public var lingerBytes = 4 * 1024 * 1024
    /// Longest `wait_ms` of a long poll: shorter than the time-outs of usual proxies.
    public var longPollMs = 30_000
    /// Age of the list of queues that submits are checked against.
    public var queueListAge = Duration.seconds(2)
    /// Queues there may be before a submit, where any queue is allowed, makes no new one.
    public var queues = 1000
    /// Between two looks at queues and workers for the metrics.
    public var queueMetricsInterval = Duration.seconds(10)
    /// An unknown queue makes the list be read again, at most this often.
    public var queueListRetry = Duration.milliseconds(200)
    /// Between two looks at the link to Redis.
    public var healthInterval = Duration.seconds(5)
    /// For a fresh connection to Redis to answer.
    public var healthTimeout = Duration.seconds(2)

    /// After the drain window, for the last answers to leave.
    public var drainGrace = Duration.seconds(2)

    // MARK: Ingest

    /// Reports of one producer: per second, and at once after a pause. Each is a script in Redis and an event to every watcher.
    public var reportsPerSecond = 20.0
    public var reportsBurst = 40.0
    /// Jobs one owner opens for producers: they wait in no queue whose depth would bound them.
    public var opensPerSecond = 50.0
    public var opensBurst = 200.0
    /// How long a producer may ask to be let alone between two reports: a dead one is noticed that much later.
    public var leaseMs = 1000...600_000
    /// Producers whose rate is remembered, about 32 bytes each; of more than so many, the longest silent are forgotten.
    public var reportersRemembered = 50_000

    // MARK: Answers

    /// Age of the lists of queues and workers that dashboards are given: however many of them ask, Redis is read this often.
    public var listAge = Duration.seconds(1)
    /// Log lines per answer, and how many are given when the client does not say.
    public var logLines = 1000
    public var logLinesDefault = 200
    /// Jobs of one `/v1/events` stream.
    public var jobsPerStream = 32

    public init() {}
}
