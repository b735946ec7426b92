/// Every metadata key our logs use. Messages are static, lower-case sentences; what varies stands under one of these.
///
/// Never logged: tokens, parameters, results, file contents, query strings.
public enum LogKey {
    // Who
    public static let jobID = "job.id"
    public static let queueName = "queue.name"
    public static let pipelineName = "pipeline.name"
    public static let workerID = "worker.id"
    public static let connectionID = "connection.id"
    public static let requestID = "request.id"
    // What
    public static let attempt = "job.attempt"
    public static let phase = "job.phase"
    public static let transport = "transport"
    public static let method = "http.method"
    public static let route = "http.route"
    public static let status = "http.status"
    public static let durationMs = "duration.ms"
    public static let bytes = "bytes"
    public static let count = "count"
    // Why
    public static let errorCode = "error.code"
    public static let errorMessage = "error.message"
    // Where
    public static let address = "net.address"
    public static let path = "file.path"
    public static let pid = "process.pid"
    public static let version = "version"
}
