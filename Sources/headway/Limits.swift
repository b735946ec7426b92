/// Every bound of this room, with the reason for its size.
enum Limits {
    // Configuration
    /// A settings or pipelines file; ours are below 10 kB, and YAML is read whole.
    static let settingsFileBytes = 1 << 20
    /// Pipelines one process may know; each is shown to every client that asks.
    static let pipelines = 256

    // Queues
    /// Dead letters of one listing or redrive: a queue keeps no more.
    static let deadLetters = 10_000

    // Gateway client
    /// Answers that are read whole (snapshots, errors); the largest is a job with 256 KiB of params and its result.
    static let answerBytes = 4 << 20
    /// One line of an event stream; events are below 64 KiB.
    static let eventLineBytes = 1 << 20
    /// All `data:` lines of one event together.
    static let eventBytes = 2 << 20
    /// Chunk in which files are read and written.
    static let fileChunkBytes = 64 << 10
    /// Input files of one submit.
    static let inputsPerSubmit = 32
    /// Params of a job; the gateway refuses more.
    static let paramsBytes = 256 << 10
    /// Answer time of a request that is no stream.
    static let requestSeconds: Int64 = 30
    /// Files may take longer: they are bounded by silence, not by length. Longer than a long poll and the pause between two
    /// comments of an event stream.
    static let transferIdleSeconds: Int64 = 60
    static let connectSeconds: Int64 = 5

    // Watching
    /// Jobs of one `watch`: one connection each.
    static let watchedJobs = 64
    /// Streams carry a comment every 15 s; three missed ones mean a dead link.
    static let streamSilence = Duration.seconds(45)
    /// Reconnect delay before the server names another one.
    static let retryBase = Duration.milliseconds(500)
    /// No `retry:` and no back-off makes a watcher wait longer than this.
    static let retryCap = Duration.seconds(10)
    /// So many failed streams in a row without one event, and the watch goes on by polling.
    static let failuresBeforePolling = 4
    /// One long poll; the gateway holds it at most 30 s.
    static let pollWaitMs = 20_000

    // Terminal
    /// Narrower terminals get lines cut to this width all the same.
    static let narrowestTerminal = 10
    static let widestTerminal = 500
    /// Redraws per second: the eye wants no more, and a remote terminal is spared.
    static let framesPerSecond = 8
    /// Plain output: state lines at most this often per job.
    static let plainLineInterval = Duration.seconds(1)

    // Services
    /// How long a starting gateway or worker waits for a Redis that is not there yet.
    static let redisStartSeconds: Int64 = 10
    /// A private redis-server must answer within this after its start (it may have to load its file first).
    static let privateRedisStartSeconds: Int64 = 20
    /// Restarts of the private redis-server in a row, each within a minute of the one before.
    static let privateRedisRestarts = 5
    /// Path of a unix socket: `sun_path` holds 108 bytes with its end.
    static let socketPathBytes = 107
    /// One message to a benchmark's watcher.
    static let benchMessageBytes = 1024 * 1024

    // Replay
    /// Jobs that run at once in a replay.
    static let replayedJobs = 10_000
    /// An export of learned durations: at most 1024 fields.
    static let statisticsFileBytes = 4 << 20
    /// A file of traces; a job has a few kB.
    static let traceFileBytes = 64 << 20
}
