import RedisLink

/// How many jobs of a queue are where, and what holds them there.
public struct QueueStatus: Sendable, Hashable {
    public var name: String
    public var ready: Int
    public var delayed: Int
    /// Waiting outside the line because their tenants run as many jobs as they may.
    public var parked = 0
    public var running: Int
    public var dead: Int
    public var isPaused: Bool
    public var isDraining = false
    public var limits = QueueLimits()

    /// Jobs that wait or run.
    public var living: Int { ready + delayed + parked + running }

    public init(name: String, ready: Int, delayed: Int, running: Int, dead: Int, isPaused: Bool) {
        self.name = name
        self.ready = ready
        self.delayed = delayed
        self.running = running
        self.dead = dead
        self.isPaused = isPaused
    }
}

/// The limits of a queue, nil where there is none. They act in each partition for itself.
public struct QueueLimits: Sendable, Hashable {
    public var maxDepth: Int?
    public var maxRunning: Int?
    public var tenantMaxQueued: Int?
    public var tenantMaxRunning: Int?
    /// What is set for single tenants.
    public var tenants: [String: Tenant] = [:]

    public struct Tenant: Sendable, Hashable {
        public var weight: Int?
        public var maxQueued: Int?
        public var maxRunning: Int?
        public init() {}
    }

    public init() {}

    /// What the fields of `queue:Q:meta` say; the others are no limits.
    init(fields: [String: String]) {
        for (name, text) in fields {
            guard let number = Int(text) else { continue }
            switch name {
            case "max_depth": maxDepth = number
            case "max_running": maxRunning = number
            case "tenant_max_queued": tenantMaxQueued = number
            case "tenant_max_running": tenantMaxRunning = number
            default:
                guard let colon = name.firstIndex(of: ":") else { continue }
                let tenant = String(name[name.index(after: colon)...])
                switch name[..<colon] {
                case "weight": tenants[tenant, default: Tenant()].weight = number
                case "max_queued": tenants[tenant, default: Tenant()].maxQueued = number
                case "max_running": tenants[tenant, default: Tenant()].maxRunning = number
                default: continue
                }
            }
        }
    }
}

extension JobStore {
    /// Every registered queue, by name.
    public func queues() async throws(StoreError) -> [QueueStatus] {
        try await status(ofQueues: queueNames().sorted())
    }

    /// These queues, in this order, registered or not.
    public func status(ofQueues names: [String]) async throws(StoreError) -> [QueueStatus] {
        let parts: [Keys.QueuePart] = [.ready, .delayed, .leases, .dead]
        let slices = names.flatMap { name in (0..<keys.partitions).map { (name: name, partition: $0) } }
        let replies = try await checked(
            slices.flatMap { slice -> [[RedisArgument]] in
                parts.map { ["ZCARD", .string(keys.queue(slice.name, $0, partition: slice.partition))] }
                    + [["HGETALL", .string(keys.queue(slice.name, .meta, partition: slice.partition))]]
            }
        )
        var states: [QueueStatus] = []
        for (index, slice) in slices.enumerated() {
            if slice.partition == 0 {
                states.append(QueueStatus(name: slice.name, ready: 0, delayed: 0, running: 0, dead: 0, isPaused: false))
            }
            let answers = replies[(index * 5)...]
            let numbers = answers.prefix(4).map { $0.int ?? 0 }
            let meta = answers[answers.startIndex + 4].stringMap
            let last = states.count - 1
            states[last].ready += numbers[0]
            states[last].delayed += numbers[1]
            states[last].running += numbers[2]
            states[last].dead += numbers[3]
            states[last].parked += max(0, meta["parked"].flatMap { Int($0) } ?? 0)
            states[last].isPaused = states[last].isPaused || meta["paused"] != nil
            states[last].isDraining = states[last].isDraining || meta["draining"] != nil
            // Settings are written to all partitions alike.
            if slice.partition == 0 { states[last].limits = QueueLimits(fields: meta) }
        }
        return states
    }
}
