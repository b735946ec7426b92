import ProgressCore

/// Bounds of what the store takes in, each with its reason. Redis holds everything in memory, so everything has a size.
public enum StoreLimits {
    /// A job's parameters: they are read by every claim and live as long as the job.
    public static let paramsBytes = 256 * 1024
    /// A job's result: it travels in the terminal event to every watcher.
    public static let resultBytes = 64 * 1024
    /// An error's message, a cancel's reason, a progress message: a line for people.
    public static let textBytes = 512
    /// Owners, classes, worker names, who cancelled.
    public static let nameBytes = 128
    /// A preview image.
    public static let previewBytes = 512 * 1024
    /// One log line; longer ones are cut by the worker.
    public static let logLineBytes = 2048
    /// Log lines per write.
    public static let logLinesPerWrite = 100
    /// A job's plan.
    public static let planBytes = 16 * 1024
    /// How long learned durations are kept after the last job: 30 days.
    public static let statisticsKeepMs = 30 * 24 * 3600 * 1000
    /// Pipelines of which they are kept; submitters name pipelines.
    public static let statisticsPipelines = 1000
    /// A forecast of waits is made at most this often per queue, and kept so long when nobody renews it.
    public static let forecastTickMs = 900
    public static let forecastKeepMs = 10_000
    /// Who made the last forecast goes on unless silent for this long: it knows what the others would have to read.
    public static let forecastHoldMs = 3000
    /// Workers and running jobs that a forecast looks at.
    public static let forecastWorkers = 1024
    public static let forecastRunning = 1024
    /// Places of one partition's line that it looks at.
    public static func forecastPlaces(partitions: Int) -> Int { max(1, ProgressLimits.forecastPositions / max(1, partitions)) }
    /// Recorded stages and ticks of one job.
    public static let traceBytes = 64 * 1024
    /// Priorities run from 0 (last) to this (first).
    public static let highestPriority = 9
    /// Children of a group: a cancel of it walks over them in one step.
    public static let children = 1000
    /// Labels of a worker.
    public static let labels = 8
    /// Longest that a worker blocks for work before it looks again. `claim.lua` counts on it: a worker with labels is taken for
    /// idle a little longer than this.
    public static let longestBlockMs = 25_000
    /// Jobs that go together in one call, and their bytes: no call may hold Redis up for long (32 jobs: half a millisecond).
    static let jobsPerSubmit = 32
    static let submitBytes = 256 * 1024
    /// Calls of one queue and partition under way at once. With fewer of them Redis and this process wait for each other, and to be woken
    /// costs more than a call.
    static let submitCallsUnderWay = 4
    /// So many go together even where a call's share of what waits is less: the rest of a call costs as much as two jobs.
    static let jobsWorthACall = 4
    /// Submits that wait for the calls before them, and their bytes.
    static let waitingSubmits = 10_000
    static let waitingSubmitBytes = 64 << 20
    /// Attempts a submit may ask for.
    public static let maximumAttempts = 100
    /// Longest delay, run time, waiting time and retention a submit may ask for: 30 days.
    public static let longestMs = 30 * 24 * 3600 * 1000

    /// Queue names: `[a-z0-9-]{1,64}`.
    public static func isQueueName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                ($0 >= UInt8(ascii: "a") && $0 <= UInt8(ascii: "z")) || ($0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9"))
                    || $0 == UInt8(ascii: "-")
            }
    }

    /// Labels: 1–64 characters of letters, digits and `. _ -`.
    public static func isLabel(_ label: String) -> Bool {
        (1...64).contains(label.utf8.count)
            && label.utf8.allSatisfy {
                ($0 >= UInt8(ascii: "a") && $0 <= UInt8(ascii: "z")) || ($0 >= UInt8(ascii: "A") && $0 <= UInt8(ascii: "Z"))
                    || ($0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9")) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "_")
                    || $0 == UInt8(ascii: "-")
            }
    }

    static func check(_ job: JobSubmission) throws(StoreError) {
        func need(_ holds: Bool, _ message: String) throws(StoreError) {
            if !holds { throw StoreError(.invalid, message) }
        }
        try need(job.children != nil || isQueueName(job.queue), "queue: 1–64 characters of a-z 0-9 - are needed")
        try need((1...nameBytes).contains(job.pipeline.utf8.count), "pipeline: 1–\(nameBytes) bytes are needed")
        try need((1...nameBytes).contains(job.owner.text.utf8.count), "owner: 1–\(nameBytes) bytes are needed")
        try need(job.paramsJSON.utf8.count <= paramsBytes, "params: at most \(paramsBytes) bytes")
        try need((0...highestPriority).contains(job.priority), "priority: 0…\(highestPriority) is needed")
        try need((0...longestMs).contains(job.delayMs), "delay_ms: 0…\(longestMs) is needed")
        try need(job.maxAttempts.map { (1...maximumAttempts).contains($0) } ?? true, "max_attempts: 1…\(maximumAttempts) is needed")
        try need(job.maxRuntimeMs.map { (1...longestMs).contains($0) } ?? true, "max_runtime_ms: 1…\(longestMs) is needed")
        try need(job.ttlMs.map { (1...longestMs).contains($0) } ?? true, "ttl_ms: 1…\(longestMs) is needed")
        try need(job.expiresAtMs.map { (1..<(1 << 52)).contains($0) } ?? true, "expires_at: Unix milliseconds are needed")
        try need((job.jobClass ?? "").utf8.count <= nameBytes, "class: at most \(nameBytes) bytes")
        try need((job.planJSON ?? "").utf8.count <= planBytes, "plan: at most \(planBytes) bytes")
        try need(job.prefer.map(isLabel) ?? true, "prefer: 1–64 characters of A-Z a-z 0-9 . _ - are needed")
        try need(job.children.map { (1...children).contains($0) } ?? true, "children: 1…\(children) is needed")
        try need(job.children == nil || (job.childOf == nil && job.id.childNumber == nil), "children: a child cannot be a group")
        try need((job.traceparent ?? "").utf8.count <= nameBytes, "traceparent: at most \(nameBytes) bytes")
    }
}

extension StoreLimits {
    static func check(_ job: ProducerSubmission) throws(StoreError) {
        func need(_ holds: Bool, _ message: String) throws(StoreError) {
            if !holds { throw StoreError(.invalid, message) }
        }
        try need(job.id.childNumber == nil, "id: ~ is reserved for the children of a group")
        try need((1...nameBytes).contains(job.pipeline.utf8.count), "pipeline: 1–\(nameBytes) bytes are needed")
        try need((1...nameBytes).contains(job.owner.text.utf8.count), "owner: 1–\(nameBytes) bytes are needed")
        try need((1...nameBytes).contains(job.nonce.utf8.count), "nonce: 1–\(nameBytes) bytes are needed")
        try need(job.producer.utf8.count <= nameBytes, "producer: at most \(nameBytes) bytes")
        try need(job.paramsJSON.utf8.count <= paramsBytes, "params: at most \(paramsBytes) bytes")
        try need(job.maxRuntimeMs.map { (1...longestMs).contains($0) } ?? true, "max_runtime_ms: 1…\(longestMs) is needed")
        try need(job.ttlMs.map { (1...longestMs).contains($0) } ?? true, "ttl_ms: 1…\(longestMs) is needed")
        try need((job.jobClass ?? "").utf8.count <= nameBytes, "class: at most \(nameBytes) bytes")
        try need((job.traceparent ?? "").utf8.count <= nameBytes, "traceparent: at most \(nameBytes) bytes")
    }
}

extension Duration {
    /// Whole milliseconds, rounded down.
    public var wholeMilliseconds: Int {
        Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000)
    }
}
