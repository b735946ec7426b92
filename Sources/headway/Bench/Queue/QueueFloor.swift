import JobStore

/// The least a Redis queue with leases can do: three small scripts over hiredis, no wake-up, progress, events, order of tenants,
/// limits or expiry of waiting jobs. An upper bound for the design, not a product.
struct QueueFloor {
    private static let submitScript = """
        redis.call('HSET', KEYS[1], 'payload', ARGV[1], 'state', 'queued')
        redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
        return 1
        """
    private static let claimScript = """
        local popped = redis.call('ZPOPMIN', KEYS[1])
        if not popped[1] then return {} end
        local key = 'floor:job:' .. popped[1]
        redis.call('HSET', key, 'state', 'running')
        redis.call('ZADD', KEYS[2], ARGV[1], popped[1])
        return { popped[1], redis.call('HGET', key, 'payload') }
        """
    private static let finishScript = """
        redis.call('ZREM', KEYS[2], ARGV[1])
        redis.call('HSET', KEYS[1], 'state', 'done')
        redis.call('EXPIRE', KEYS[1], 3600)
        return 1
        """

    private let connection: HiredisConnection
    private let submitHash: String
    private let claimHash: String
    private let finishHash: String

    init(_ redis: BenchRedis) throws(CommandError) {
        let connection = try redis.connect()
        self.connection = connection
        func load(_ script: String) throws(CommandError) -> String { try connection.command(["SCRIPT", "LOAD", script]).text ?? "" }
        submitHash = try load(Self.submitScript)
        claimHash = try load(Self.claimScript)
        finishHash = try load(Self.finishScript)
    }

    /// Submits per second, `depth` commands in one write and then their replies.
    func submit(_ ids: [String], payload: String, depth: Int) throws(CommandError) -> Double {
        let start = MachineClock.nanoseconds()
        for batch in stride(from: 0, to: ids.count, by: depth) {
            let end = min(batch + depth, ids.count)
            for index in batch..<end {
                connection.append(
                    ["EVALSHA", submitHash, "2", "floor:job:\(ids[index])", "floor:ready", payload, "\(index)", ids[index]]
                )
            }
            for _ in batch..<end { try connection.reply() }
        }
        return Double(ids.count) / Double(MachineClock.nanoseconds() - start) * 1e9
    }

    /// Jobs claimed and finished per second: with one in flight, each is finished before the next is claimed.
    func claimAndFinish(_ count: Int) throws(CommandError) -> Double {
        let start = MachineClock.nanoseconds()
        for _ in 0..<count {
            connection.append(["EVALSHA", claimHash, "2", "floor:ready", "floor:leases", "\(start)"])
            guard let id = try connection.reply().array?.first?.text else { throw CommandError(.failed, "the floor's queue is empty") }
            connection.append(["EVALSHA", finishHash, "2", "floor:job:\(id)", "floor:leases", id])
            try connection.reply()
        }
        return Double(count) / Double(MachineClock.nanoseconds() - start) * 1e9
    }
}
