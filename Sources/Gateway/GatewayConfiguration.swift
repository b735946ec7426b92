public import ProgressCore

/// What one gateway is told; the executable reads it from flags, environment and file.
public struct GatewayConfiguration: Sendable {
    /// Address to bind, e.g. `127.0.0.1` or `::1`; a name is resolved.
    public var host: String
    /// 0 picks a free port.
    public var port: Int
    /// Where uploads and result files are kept; created when absent.
    public var dataDirectory: String
    /// The pipelines a job may name.
    public var pipelines: [Pipeline]
    /// Take jobs for queues nobody has registered.
    public var allowAnyQueue: Bool
    /// Bind an address that others can reach although there is no authentication.
    public var isInsecure: Bool
    /// Further values of `Host` that are ours (with or without port). A listener on loopback takes only these and loopback
    /// names; another listener takes only these when there are any, else all.
    public var allowedHosts: [String]
    /// Origins (`https://app.example`) whose pages may use this gateway, beside its own; `*` is any.
    public var allowedOrigins: [String]
    /// Over how long the watchers are sent away when the gateway stops.
    public var drainWindow: Duration
    public var limits: GatewayLimits

    public init(
        host: String = "127.0.0.1",
        port: Int = 8080,
        dataDirectory: String,
        pipelines: [Pipeline] = [],
        allowAnyQueue: Bool = false,
        isInsecure: Bool = false,
        allowedHosts: [String] = [],
        allowedOrigins: [String] = [],
        drainWindow: Duration = .seconds(5),
        limits: GatewayLimits = .init()
    ) {
        self.host = host
        self.port = port
        self.dataDirectory = dataDirectory
        self.pipelines = pipelines
        self.allowAnyQueue = allowAnyQueue
        self.isInsecure = isInsecure
        self.allowedHosts = allowedHosts
        self.allowedOrigins = allowedOrigins
        self.drainWindow = drainWindow
        self.limits = limits
    }
}
