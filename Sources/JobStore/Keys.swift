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
