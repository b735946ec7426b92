public import NIOCore
public import ProgressCore

/// The spelling of every Redis key and channel of one deployment, and the partition each job belongs to.
///
/// `docs/redis.md` is the public contract; this is the only file that spells a key outside the scripts, which derive theirs
/// from the hash tag of a key they were given.
public struct Keys: Sendable, Hashable {
    /// First part of every key.
    public let prefix: String
    /// Number of partitions P, 1…`maximumPartitions`.
    public let partitions: Int

    /// Most partitions a deployment may have: each is a sweep of every queue.
    public static let maximumPartitions = 1024

    private let tags: [String]
    private let liveHeads: [String]

    public init(prefix: String = "headway", partitions: Int = 1) {
        precondition((1...Self.maximumPartitions).contains(partitions), "partitions must be 1…\(Self.maximumPartitions)")
        self.prefix = prefix
        self.partitions = partitions
        let tags = Self.tags(partitions: partitions)
        self.tags = tags
        self.liveHeads = tags.map { "\(prefix):{\($0)}:live:" }
    }

    /// The partition of a job: CRC16 of its id up to the first `~`, so that children live with their parent.
    public func partition(of job: JobID) -> Int {
        partitions == 1 ? 0 : Int(Self.crc16(job.root.utf8)) % partitions
    }

    /// The hash tag of partition `index`: the smallest decimal number whose Redis Cluster slot lies in the index-th of P equal
    /// slices of the 16 384 slots.
    public func tag(_ index: Int) -> String { tags[index] }

    private func base(_ job: JobID) -> String { "\(prefix):{\(tags[partition(of: job)])}" }

    func job(_ job: JobID) -> String { "\(base(job)):job:\(job.text)" }
    func milestones(_ job: JobID) -> String { "\(base(job)):milestones:\(job.text)" }
    func log(_ job: JobID) -> String { "\(base(job)):log:\(job.text)" }
    func preview(_ job: JobID) -> String { "\(base(job)):preview:\(job.text)" }

    func queue(_ queue: String, _ part: QueuePart, partition: Int) -> String {
        "\(prefix):{\(tags[partition])}:queue:\(queue):\(part.rawValue)"
    }

    enum QueuePart: String {
        case ready, delayed, leases, deadlines, dead, meta, tenants
    }

    func wake(_ queue: String) -> String { "\(prefix):{wake}:\(queue)" }
    /// Workers with this label wait for its tokens too.
    func wake(_ queue: String, label: String) -> String { "\(wake(queue)):\(label)" }

    /// Stands for the queue of jobs that no worker takes: progress-only ones and groups. No queue can be named so.
    public static let heldQueue = "_"

    func tenant(_ tenant: String, of queue: String, partition: Int) -> String {
        "\(prefix):{\(tags[partition])}:queue:\(queue):tenant:\(tenant)"
    }

    func parked(_ tenant: String, of queue: String, partition: Int) -> String {
        "\(prefix):{\(tags[partition])}:queue:\(queue):parked:\(tenant)"
    }

    func trace(_ job: JobID) -> String { "\(base(job)):trace:\(job.text)" }
    func group(_ job: JobID) -> String { "\(base(job)):group:\(job.text)" }

    /// What every key of a job in this partition begins with.
    func jobPrefix(partition: Int) -> String { "\(prefix):{\(tags[partition])}:job:" }

    /// Learned durations of a pipeline, and the jobs they were learned from lately.
    func statistics(_ pipeline: String) -> String { "\(prefix):{stats:\(Self.statisticsName(pipeline))}:m" }
    func statisticsSeen(_ pipeline: String) -> String { "\(prefix):{stats:\(Self.statisticsName(pipeline))}:seen" }
    var statisticsIndex: String { "\(prefix):stats" }

    /// The forecast of a queue's waits, and what was learned of its errors.
    func waits(_ queue: String, _ part: WaitPart) -> String { "\(prefix):{wait:\(queue)}:\(part.rawValue)" }

    enum WaitPart: String {
        case frame, calibration
    }

    /// A pipeline's name as part of a hash tag: submitters may have put anything into it.
    static func statisticsName(_ pipeline: String) -> String {
        let bytes = pipeline.utf8.prefix(ProgressLimits.pipelineNameBytes).map { byte in
            let isPlain = StageName.isAllowed(byte) && byte != UInt8(ascii: " ") && byte != UInt8(ascii: ":") && byte != UInt8(ascii: "/")
            return isPlain ? byte : UInt8(ascii: "_")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    var meta: String { "\(prefix):meta" }
    var queues: String { "\(prefix):queues" }
    var workers: String { "\(prefix):workers" }
    func worker(_ id: String) -> String { "\(prefix):worker:\(id)" }

    /// Pub/sub channel of a job's events.
    public func live(_ job: JobID) -> String { liveHeads[partition(of: job)] + job.text }

    /// The job of a channel name made by `live`, or nil for another channel.
    public func job(ofChannel channel: ByteBuffer) -> JobID? {
        let name = String(buffer: channel)
        for head in liveHeads where name.hasPrefix(head) {
            return JobID(String(name.dropFirst(head.count)))
        }
        return nil
    }

    /// Pub/sub channel on which a worker gets cancel hints (payload: the job's id).
    public func workerHints(_ worker: String) -> String { workerHintsPrefix + worker }

    var workerHintsPrefix: String { "\(prefix):hints:" }

    /// A channel for the end-to-end canary of one gateway.
    public func canary(_ gateway: String) -> String { "\(prefix):canary:\(gateway)" }

    /// What a key of this deployment is, by its name; nil for one with another prefix.
    func kind(of key: String) -> KeyKind? {
        guard key.hasPrefix("\(prefix):") else { return nil }
        let rest = key.dropFirst(prefix.utf8.count + 1)
        guard rest.first == "{", let close = rest.firstIndex(of: "}") else { return Self.plainKind(rest) }
        let tag = rest[rest.index(after: rest.startIndex)..<close]
        let name = rest[rest.index(after: close)...].dropFirst()
        if tag == "wake" { return name.contains(":") || name.isEmpty ? .passing : .lasting }
        if tag.hasPrefix("stats:") || tag.hasPrefix("wait:") { return .passing }
        guard let partition = tags.firstIndex(where: { $0 == tag }) else { return .unknown }
        return Self.partitionKind(name, partition: partition)
    }

    private static func plainKind(_ name: Substring) -> KeyKind {
        switch name {
        case "meta", "queues", "workers", "stats": .lasting
        case "audit": .passing
        default: name.hasPrefix("worker:") ? .passing : .unknown
        }
    }

    private static func partitionKind(_ name: Substring, partition: Int) -> KeyKind {
        guard let colon = name.firstIndex(of: ":") else { return name == "ended" ? .lasting : .unknown }
        let rest = name[name.index(after: colon)...]
        switch name[..<colon] {
        case "job": return JobID(String(rest)).map { .job($0) } ?? .unknown
        case "milestones": return .milestones
        case "log", "preview", "trace", "idem", "claim": return .passing
        case "group":
            // `:` may be part of an id, and such an id may end like this: then the group is looked at all the same.
            if rest.hasSuffix(":eta") { return .passing }
            return JobID(String(rest)).map { .group($0) } ?? .unknown
        case "queue":
            guard let end = rest.firstIndex(of: ":") else { return .unknown }
            let (queue, part) = (String(rest[..<end]), rest[rest.index(after: end)...])
            guard StoreLimits.isQueueName(queue) || queue == heldQueue else { return .unknown }
            switch part {
            case "meta": return .queueMeta(queue, partition: partition)
            case "ready", "delayed", "leases", "deadlines": return .place(queue, partition: partition, lasts: true)
            case "dead": return .place(queue, partition: partition, lasts: false)
            case "tenants": return .passing
            default:
                if part.hasPrefix("parked:") { return .place(queue, partition: partition, lasts: false) }
                return part.hasPrefix("tenant:") || part.hasPrefix("idle:") ? .passing : .unknown
            }
        default: return .unknown
        }
    }

    /// Taken by whoever audits, so that only one process does.
    var audit: String { "\(prefix):audit" }

    private static let slots = 16_384

    private static func tags(partitions: Int) -> [String] {
        guard partitions > 1 else { return ["0"] }
        var found = [String?](repeating: nil, count: partitions)
        var missing = partitions
        var number = 0
        while missing > 0 {
            let text = String(number)
            let index = (Int(crc16(text.utf8)) % slots) * partitions / slots
            if found[index] == nil {
                found[index] = text
                missing -= 1
            }
            number += 1
        }
        return found.compactMap { $0 }
    }

    /// CRC16-CCITT (XMODEM), polynomial 0x1021, as in the Redis Cluster specification.
    static func crc16(_ bytes: some Sequence<UInt8>) -> UInt16 {
        var crc: UInt16 = 0
        for byte in bytes {
            crc ^= UInt16(byte) << 8
            for _ in 0..<8 {
                crc = crc & 0x8000 != 0 ? (crc << 1) ^ 0x1021 : crc << 1
            }
        }
        return crc
    }
}

/// What a key holds, as far as an audit must know.
enum KeyKind: Hashable {
    case job(JobID)
    case milestones
    case group(JobID)
    case queueMeta(String, partition: Int)
    /// A sorted set of jobs of a queue; `lasts`: it vanishes with its last member and has no TTL.
    case place(String, partition: Int, lasts: Bool)
    /// Anything else that has a TTL.
    case passing
    /// One of the few keys without TTL.
    case lasting
    case unknown
}
