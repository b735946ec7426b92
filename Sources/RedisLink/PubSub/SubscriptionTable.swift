import NIOCore

/// Somebody who waits until the server has acknowledged all channels of one `subscribe` call. Belongs to one event loop.
final class SubscribeTicket {
    let deadline: NIODeadline
    private var remaining: Int
    private var promise: EventLoopPromise<Void>?

    init(channels: Int, deadline: NIODeadline, promise: EventLoopPromise<Void>) {
        remaining = channels
        self.deadline = deadline
        self.promise = promise
        if channels == 0 { end(nil) }
    }

    /// A subscriber that goes away without `run()` having ended leaves nobody waiting.
    deinit { end(RedisError(.closed, "the subscriber has ended")) }

    var isDone: Bool { promise == nil }

    func channelIsDone() {
        remaining -= 1
        if remaining == 0 { end(nil) }
    }

    /// The first end counts.
    func end(_ error: RedisError?) {
        guard let promise else { return }
        self.promise = nil
        if let error { promise.fail(error) } else { promise.succeed() }
    }
}

/// Which channels are wanted, and what the server was told about each: a pure value that decides what to send next.
///
/// Wishes are collected; what is sent is the difference between the wish and what was sent last, so a quick
/// unsubscribe–subscribe sends nothing, and the last wish always wins. The server handles the commands of one connection in
/// order and acknowledges each channel of each command once.
struct SubscriptionTable {
    enum Command: Equatable {
        case subscribe([String])
        case unsubscribe([String])
    }

    private struct Entry {
        var isWanted = true
        /// The last command sent for the channel was SUBSCRIBE.
        var isSubscribed = false
        /// SUBSCRIBEs of this channel without acknowledgement.
        var acksAwaited = 0
        var isQueued = false
        var isRestoring = false
        var tickets: [SubscribeTicket] = []

        /// The server said yes to the last SUBSCRIBE, and no UNSUBSCRIBE followed it.
        var isSettled: Bool { isSubscribed && acksAwaited == 0 }
    }

    private var entries: [String: Entry] = [:]
    /// Channels whose wish may differ from what was sent; looked at again when they are taken out.
    private var queue = CircularBuffer<String>()
    private(set) var unacknowledged = 0
    private(set) var restoring = 0
    private let limits: RedisLimits

    init(limits: RedisLimits) { self.limits = limits }

    var wantedCount: Int { entries.count }
    var hasQueued: Bool { !queue.isEmpty }

    // MARK: Wishes

    mutating func subscribe(_ channel: String, _ ticket: SubscribeTicket) {
        var entry = entries.removeValue(forKey: channel) ?? Entry()
        entry.isWanted = true
        if entry.isSettled {
            ticket.channelIsDone()
        } else {
            entry.tickets.append(ticket)
            enqueue(channel, &entry)
        }
        entries[channel] = entry
    }

    /// Whoever waits for the channel is told it is done: nobody wants it any more.
    mutating func unsubscribe(_ channel: String) {
        guard var entry = entries.removeValue(forKey: channel) else { return }
        entry.isWanted = false
        endRestoring(&entry)
        let tickets = entry.tickets
        entry.tickets = []
        if entry.isSubscribed { enqueue(channel, &entry) }
        if entry.isSubscribed || entry.acksAwaited > 0 || entry.isQueued { entries[channel] = entry }
        for ticket in tickets { ticket.channelIsDone() }
    }

    private mutating func enqueue(_ channel: String, _ entry: inout Entry) {
        guard !entry.isQueued else { return }
        entry.isQueued = true
        queue.append(channel)
    }

    private mutating func endRestoring(_ entry: inout Entry) {
        guard entry.isRestoring else { return }
        entry.isRestoring = false
        restoring -= 1
    }

    // MARK: Sending

    /// The next command to send, in the order of the wishes; nil when there is none, or when enough is unacknowledged.
    mutating func nextCommand() -> Command? {
        var channels: [String] = []
        var isSubscribe = true
        while let channel = queue.first, channels.count < limits.channelsPerCommand {
            guard unacknowledged < limits.unacknowledgedChannelsMax else { break }
            guard var entry = entries[channel], entry.isWanted != entry.isSubscribed else {
                queue.removeFirst()
                drop(channel)
                continue
            }
            if channels.isEmpty { isSubscribe = entry.isWanted }
            guard entry.isWanted == isSubscribe else { break }
            queue.removeFirst()
            entry.isQueued = false
            entry.isSubscribed = isSubscribe
            if isSubscribe { entry.acksAwaited += 1 }
            entries[channel] = entry.isWanted || entry.acksAwaited > 0 ? entry : nil
            unacknowledged += 1
            channels.append(channel)
        }
        guard !channels.isEmpty else { return nil }
        return isSubscribe ? .subscribe(channels) : .unsubscribe(channels)
    }

    /// The wish was taken back before it was sent.
    private mutating func drop(_ channel: String) {
        guard var entry = entries[channel] else { return }
        entry.isQueued = false
        entries[channel] = entry.isWanted || entry.isSubscribed || entry.acksAwaited > 0 ? entry : nil
    }

    // MARK: Answers

    mutating func acknowledgedSubscribe(_ channel: String) {
        unacknowledged = max(0, unacknowledged - 1)
        guard var entry = entries.removeValue(forKey: channel) else { return }
        entry.acksAwaited = max(0, entry.acksAwaited - 1)
        var tickets: [SubscribeTicket] = []
        if entry.isSettled, entry.isWanted {
            swap(&tickets, &entry.tickets)
            endRestoring(&entry)
        }
        if entry.isWanted || entry.isSubscribed || entry.acksAwaited > 0 { entries[channel] = entry }
        for ticket in tickets { ticket.channelIsDone() }
    }

    mutating func acknowledgedUnsubscribe(_ channel: String) {
        unacknowledged = max(0, unacknowledged - 1)
    }

    /// The server refused a whole command (an ACL): its channels are dropped, and whoever waits for them gets the error.
    mutating func refused(_ channels: [String], _ error: RedisError) {
        for channel in channels {
            unacknowledged = max(0, unacknowledged - 1)
            guard var entry = entries.removeValue(forKey: channel) else { continue }
            endRestoring(&entry)
            for ticket in entry.tickets { ticket.end(error) }
        }
    }

    // MARK: Connection

    /// What the server knew is gone with the connection; the wishes stay, and so do those who wait for them.
    mutating func connectionLost() {
        queue.removeAll()
        unacknowledged = 0
        restoring = 0
        for (channel, entry) in entries {
            guard entry.isWanted else {
                entries[channel] = nil
                continue
            }
            var kept = Entry()
            kept.tickets = entry.tickets
            entries[channel] = kept
        }
    }

    /// Queues every wish on a fresh connection; `isRestore` counts them in ``restoring`` until each is acknowledged.
    mutating func connectionReady(isRestore: Bool) {
        connectionLost()
        for channel in entries.keys {
            entries[channel]?.isQueued = true
            entries[channel]?.isRestoring = isRestore
            queue.append(channel)
        }
        restoring = isRestore ? entries.count : 0
    }
}
