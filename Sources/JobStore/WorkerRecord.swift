/// What a worker says of itself, for people and dashboards; nothing depends on it.
public struct WorkerRecord: Sendable, Hashable {
    /// One device a worker can compute on.
    public struct GPU: Sendable, Hashable {
        public var name: String
        /// In MiB, as the driver says; nil when it does not.
        public var memoryMB: Int?
        public var memoryUsedMB: Int?

        public init(name: String, memoryMB: Int? = nil, memoryUsedMB: Int? = nil) {
            self.name = name
            self.memoryMB = memoryMB
            self.memoryUsedMB = memoryUsedMB
        }
    }

    public var id: String
    /// Of one start of the worker; a record of another start is replaced whole.
    public var instance = ""
    public var host: String
    public var pid: Int
    public var version: String
    public var queues: [String]
    /// What it has at hand: jobs that prefer one of these come to it first.
    public var labels: [String] = []
    public var pipeline: String
    /// What it drives, e.g. `command`.
    public var backend = ""
    public var concurrency: Int
    public var gpus: [GPU] = []
    public var cpus = 0
    /// Of the machine, in MiB.
    public var memoryMB = 0
    /// ids of the jobs it runs
    public var jobs: [String]
    /// Jobs that ended well, and jobs that failed, since its start.
    public var finished = 0
    public var failed = 0
    public var isDraining: Bool
    /// Why it takes no jobs for the moment, and for how long from now in milliseconds.
    public var slowedReason: String?
    public var slowedForMs = 0
    /// Unix milliseconds of Redis's clock; 0 when it is written: now.
    public var startedAtMs: Int
    /// Since its start and since its last sign of life, in milliseconds of Redis's clock; only meaningful when read.
    public var upMs = 0
    public var silentMs = 0

    public init(
        id: String,
        host: String,
        pid: Int,
        version: String,
        queues: [String],
        pipeline: String,
        concurrency: Int,
        jobs: [String] = [],
        isDraining: Bool = false,
        startedAtMs: Int = 0
    ) {
        self.id = id
        self.host = host
        self.pid = pid
        self.version = version
        self.queues = queues
        self.pipeline = pipeline
        self.concurrency = concurrency
        self.jobs = jobs
        self.isDraining = isDraining
        self.startedAtMs = startedAtMs
    }
}

/// What a worker learns when it writes its record.
public struct WorkerOrders: Sendable, Hashable {
    /// Somebody wants it to finish its jobs, take no more and end.
    public var shouldDrain = false
    /// Another start had the name before: a predecessor that died, or, when it happens again, a second worker of this name.
    public var didReplace = false

    public init(shouldDrain: Bool = false, didReplace: Bool = false) {
        self.shouldDrain = shouldDrain
        self.didReplace = didReplace
    }
}

/// How far a running job is, for a list of workers.
public struct RunningJob: Sendable, Hashable {
    public let job: String
    public let phase: String
    public let percent: Double
    public let stage: String?
    public let attempt: Int
    /// Since its claim, in milliseconds of Redis's clock.
    public let runningMs: Int
    /// No progress for longer than usual.
    public let isStalled: Bool
}

extension WorkerRecord {
    /// The hash's fields; an empty one is removed.
    var fields: [(name: String, value: String)] {
        var fields: [(name: String, value: String)] = [
            ("host", host), ("pid", String(pid)), ("version", version), ("pipeline", pipeline), ("backend", backend),
            ("concurrency", String(concurrency)), ("finished", String(finished)), ("failed", String(failed)),
            ("draining", isDraining ? "1" : "0"),
        ]
        for (name, list) in [("queues", queues), ("labels", labels), ("jobs", jobs)] {
            fields.append((name, list.joined(separator: ",")))
        }
        fields.append(("gpus", gpus.isEmpty ? "" : Self.json(gpus)))
        fields.append(("cpus", cpus > 0 ? String(cpus) : ""))
        fields.append(("memory_mb", memoryMB > 0 ? String(memoryMB) : ""))
        fields.append(("slowed_reason", slowedReason ?? ""))
        fields.append(("slowed_in", slowedReason == nil ? "" : String(max(0, slowedForMs))))
        if startedAtMs > 0 { fields.append(("started_at", String(startedAtMs))) }
        return fields
    }

    /// - Parameter nowMs: of Redis's clock.
    init?(fields: [String: String], nowMs: Int) {
        guard let id = fields["id"] else { return nil }
        func list(_ name: String) -> [String] { (fields[name] ?? "").split(separator: ",").map(String.init) }
        func number(_ name: String) -> Int { Int(fields[name] ?? "") ?? 0 }
        self.init(
            id: id,
            host: fields["host"] ?? "",
            pid: number("pid"),
            version: fields["version"] ?? "",
            queues: list("queues"),
            pipeline: fields["pipeline"] ?? "",
            concurrency: number("concurrency"),
            jobs: list("jobs"),
            // Told is as good as done: it takes no more jobs from its next sign of life on.
            isDraining: fields["draining"] == "1" || fields["drain"] == "1",
            startedAtMs: number("started_at")
        )
        instance = fields["instance"] ?? ""
        labels = list("labels")
        backend = fields["backend"] ?? ""
        gpus = Self.gpus(json: fields["gpus"] ?? "")
        cpus = number("cpus")
        memoryMB = number("memory_mb")
        finished = number("finished")
        failed = number("failed")
        let slowedForMs = number("slowed_until") - nowMs
        if let reason = fields["slowed_reason"], slowedForMs > 0 {
            slowedReason = reason
            self.slowedForMs = slowedForMs
        }
        upMs = max(0, nowMs - startedAtMs)
        silentMs = max(0, nowMs - number("seen_at"))
    }

    static func json(_ gpus: [GPU]) -> String {
        let items = gpus.map { gpu in
            "{\"name\":\(JSONText.quoted(gpu.name))" + (gpu.memoryMB.map { ",\"memory_mb\":\($0)" } ?? "")
                + (gpu.memoryUsedMB.map { ",\"memory_used_mb\":\($0)" } ?? "") + "}"
        }
        return "[\(items.joined(separator: ","))]"
    }

    static func gpus(json: String) -> [GPU] {
        JSONText.objects(in: json).map { object in
            GPU(
                name: JSONText.string("name", in: object) ?? "",
                memoryMB: JSONText.integer("memory_mb", in: object),
                memoryUsedMB: JSONText.integer("memory_used_mb", in: object)
            )
        }
    }
}
