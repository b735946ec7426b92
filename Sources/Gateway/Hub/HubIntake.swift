import DequeModule
import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink
import Synchronization
import Telemetry

/// The half of the hub that lives on the subscriber's event loop: one entry per watched job, fed by one Redis connection.
///
/// Every event is parsed (21 bytes) and encoded once here, put in order by the job's `JobFeed`, and handed to each event loop
/// that has watchers: one hop per loop and read of the Redis socket. Nothing is decided from pub/sub alone: reads of the truth
/// (`HubIntake+Reads`) open watchers, fill gaps and catch what was lost.
///
/// Safety: all state belongs to `eventLoop`, asserted at the entries.
final class HubIntake: @unchecked Sendable {
    struct Outbox {
        var items: ContiguousArray<(room: ShardRoom, item: RoomItem)> = []
        var startedAt: NIODeadline?
        /// Compact when there are more.
        var compactAt: Int
    }

    let eventLoop: any EventLoop
    let limits: HubLimits
    let metrics: HubMetrics
    let shards: [HubShard]
    let logger: Logger
    /// Set once while the hub is put together.
    var source: (any HubSource)?
    var onDegraded: @Sendable (Bool) -> Void = { _ in }

    var entries: [JobID: JobEntry] = [:]
    var byChannel: [ByteBuffer: JobEntry] = [:]
    private var outboxes: [Outbox]
    private var readStart: NIODeadline?

    // Reads
    var readQueue = Deque<JobEntry>()
    var readsInFlight = 0
    var isReadScheduled = false
    var milestoneQueue = Deque<(entry: JobEntry, after: Int)>()
    var milestoneReadsInFlight = 0
    var failures = 0
    var retries: [JobEntry] = []
    var isRetryScheduled = false

    // Subscriptions
    var subscribeQueue: [JobEntry] = []
    var isSubscribeScheduled = false
    var isLinkUp = true
    var isDegraded = false

    // Upkeep
    var wheel: [[JobEntry]]
    var wheelPosition = 0
    var tickCount = 0
    var ticker: RepeatedTask?
    var parked = Deque<(entry: JobEntry, joiner: Joiner)>()
    var lingering = Deque<(entry: JobEntry, until: NIODeadline)>()
    var inLine: [JobEntry] = []
    var isReadingPlaces = false
    var pollCount = 0

    // Canary
    var canaryChannel: ByteBuffer?
    var canaries: [ByteBuffer: EventLoopPromise<Bool>] = [:]

    init(eventLoop: any EventLoop, shards: [HubShard], limits: HubLimits, metrics: HubMetrics, logger: Logger) {
        self.eventLoop = eventLoop
        self.shards = shards
        self.limits = limits
        self.metrics = metrics
        self.logger = logger
        self.outboxes = Array(repeating: Outbox(compactAt: limits.outboxItems), count: shards.count)
        self.wheel = Array(repeating: [], count: Self.wheelSlots(limits))
        metrics.linkUp.set(1)
    }

    // MARK: Events

    func receive(_ event: OutboundEvent, for entry: JobEntry) {
        switch entry.feed.receive(event, heldLimit: limits.heldEvents) {
        case .forward:
            entry.heardAt = readStart ?? eventLoop.now
            if entry.isCapturing, event.kind == .milestone || event.kind == .terminal { entry.captured.append(event) }
            forward(event, for: entry)
        case .hold:
            if entry.feed.heldCount == 1 { metrics.gaps.increment() }
            requestRead(entry)
        case .suspicious:
            requestRead(entry)
        case .ignore:
            break
        }
    }

    /// To everybody who was opened.
    func forward(_ event: OutboundEvent, for entry: JobEntry) {
        for link in entry.links where link.openCount > 0 { put(.event(event), on: link) }
        if !entry.pollers.isEmpty, event.isOrdered { wakePollers(of: entry) }
        if event.isOrdered { noteLine(of: entry) }
    }

    // MARK: Batches for the shards

    func put(_ item: RoomItem, on link: ShardLink) {
        outboxes[link.shard].items.append((link.room, item))
        if outboxes[link.shard].startedAt == nil { outboxes[link.shard].startedAt = readStart }
        if outboxes[link.shard].items.count > outboxes[link.shard].compactAt { compact(link.shard) }
    }

    /// Sends every shard its batch, unless it is still busy with the last.
    func flush() {
        for shard in shards where !outboxes[shard.index].items.isEmpty { flush(shard) }
    }

    private func flush(_ shard: HubShard) {
        guard shard.load.compareExchange(expected: 0, desired: 1, ordering: .acquiringAndReleasing).exchanged else {
            // Busy: it asks again when it is done. If it became idle just now, go on.
            if shard.load.compareExchange(expected: 1, desired: 2, ordering: .acquiringAndReleasing).original != 0 { return }
            flush(shard)
            return
        }
        let outbox = outboxes[shard.index]
        outboxes[shard.index] = Outbox(compactAt: limits.outboxItems)
        if shard.eventLoop === eventLoop {
            shard.receive(outbox.items, startedAt: outbox.startedAt)
        } else {
            shard.eventLoop.execute { shard.receive(outbox.items, startedAt: outbox.startedAt) }
        }
    }

    /// The shard cannot keep up: only what may not be dropped stays, and the newest state of each job.
    private func compact(_ shard: Int) {
        let before = outboxes[shard].items
        var seen: [ObjectIdentifier: (isCovered: Bool, hasPlace: Bool, milestones: Int)] = [:]
        var kept: ContiguousArray<(room: ShardRoom, item: RoomItem)> = []
        for (room, item) in before.reversed() {
            var known = seen[ObjectIdentifier(room)] ?? (false, false, 0)
            defer { seen[ObjectIdentifier(room)] = known }
            guard case .event(let event) = item else {
                kept.append((room, item))
                continue
            }
            switch event.kind {
            case .state:
                if known.isCovered {
                    metrics.conflated.increment()
                    continue
                }
                known.isCovered = true
            case .milestone:
                known.isCovered = true
                known.milestones += 1
            case .lossy:
                metrics.droppedLossy.increment()
                continue
            case .queue:
                if known.hasPlace { continue }
                known.hasPlace = true
            case .terminal, .reset, .gone, .control:
                known.isCovered = true
            }
            kept.append((room, item))
        }
        kept.reverse()
        let flooded = seen.filter { $0.value.milestones > limits.outboxMilestones }.keys
        if !flooded.isEmpty {
            // All of its events go, or what is read again would begin behind the ones that stayed.
            kept.removeAll { room, item in
                if case .event = item { flooded.contains(ObjectIdentifier(room)) } else { false }
            }
            var told: Set<ObjectIdentifier> = []
            for (room, _) in before where flooded.contains(ObjectIdentifier(room)) && told.insert(ObjectIdentifier(room)).inserted {
                kept.append((room, .resync))
            }
        }
        outboxes[shard].items = kept
        outboxes[shard].compactAt = max(limits.outboxItems, 2 * kept.count)
    }
}

// MARK: - From the Redis link

extension HubIntake: RedisSubscriberDelegate {
    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) {
        eventLoop.assertInEventLoop()
        guard let entry = byChannel[channel] else {
            if channel == canaryChannel { canaries.removeValue(forKey: payload)?.succeed(true) }
            return
        }
        guard let live = LiveEvent(payload: payload) else {
            metrics.badPayloads.increment()
            return
        }
        if readStart == nil { readStart = eventLoop.now }
        receive(OutboundEvent(live: live, for: entry.interest), for: entry)
    }

    func redisReadComplete() {
        flush()
        readStart = nil
    }

    func redisSubscriptionsLost() {
        eventLoop.assertInEventLoop()
        isLinkUp = false
        metrics.linkUp.set(0)
        updateDegraded()
    }

    func redisSubscriptionsRestored() {
        eventLoop.assertInEventLoop()
        isLinkUp = true
        metrics.linkUp.set(1)
        // Whatever was published meanwhile is lost: every job is read again, in batches.
        for entry in entries.values where entry.subscription != .missing { requestRead(entry) }
        for entry in entries.values where entry.subscription == .missing { requestSubscription(entry) }
        updateDegraded()
    }

    func updateDegraded() {
        let isDegraded = !isLinkUp || failures >= Self.failuresUntilDegraded
        guard isDegraded != self.isDegraded else { return }
        self.isDegraded = isDegraded
        logger.log(level: isDegraded ? .warning : .notice, isDegraded ? "redis is out of reach, states may be stale" : "redis is back")
        onDegraded(isDegraded)
        for shard in shards { shard.eventLoop.execute { shard.setDegraded(isDegraded) } }
    }

    /// Failed reads in a row after which clients are told.
    private static let failuresUntilDegraded = 3
}

// MARK: - From the shards

extension HubIntake: ShardUplink {
    func join(_ watchers: [Watcher], from shard: HubShard) {
        eventLoop.execute { [self] in
            for watcher in watchers { join(watcher, since: watcher.cursor, shard: shard.index) }
            flush()
        }
    }

    func rejoin(_ watcher: Watcher, since: Int, from shard: HubShard) {
        eventLoop.execute { [self] in
            if let entry = entries[watcher.job] { entry.link(to: shard.index).openCount -= 1 }
            join(watcher, since: since, shard: shard.index)
            flush()
        }
    }

    func leave(_ watchers: [Watcher], from shard: HubShard) {
        eventLoop.execute { [self] in
            for watcher in watchers { leave(watcher, shard: shard.index) }
        }
    }

    func shardIsReady(_ shard: HubShard) {
        eventLoop.execute { [self] in
            if !outboxes[shard.index].items.isEmpty { flush(shard) }
        }
    }

    private func join(_ watcher: Watcher, since: Int?, shard: Int) {
        guard let entry = entry(of: watcher.job) else {
            metrics.refused.increment()
            let link = ShardLink(shard: shard, job: watcher.job)
            put(.refuse(watcher, .refused(.tooManyJobs)), on: link)
            return
        }
        entry.interest.insert(watcher.outlet.transport == .webSocket ? .webSocket : .eventStream)
        let joiner = Joiner(kind: .watcher(watcher, entry.link(to: shard)), since: since, principal: watcher.outlet.principal)
        admit(joiner, to: entry)
    }

    private func leave(_ watcher: Watcher, shard: Int) {
        guard let entry = entries[watcher.job] else { return }
        let index = entry.joiners.firstIndex { joiner in
            if case .watcher(let waiting, _) = joiner.kind { waiting === watcher } else { false }
        }
        if let index {
            entry.joiners.remove(at: index).isSettled = true
        } else {
            entry.link(to: shard).openCount -= 1
        }
        lingerIfIdle(entry)
    }
}
