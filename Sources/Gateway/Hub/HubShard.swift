import DequeModule
import NIOCore
import ProgressCore
import Synchronization
import Telemetry

/// The half of the hub that lives on one event loop: its connections, and the rooms their watchers stand in.
///
/// Work comes from the intake in batches, at most one at a time: while one is being given out, the intake keeps the rest and
/// conflates it, so a busy loop costs O(jobs) and not O(messages). Rooms are served first come first served, at most
/// `writesPerTurn` sockets before the loop looks at its sockets again; each socket is flushed once per turn.
///
/// Safety: all state belongs to `eventLoop`, asserted at the entries; `load` is atomic.
final class HubShard: @unchecked Sendable {
    let index: Int
    let eventLoop: any EventLoop
    let limits: HubLimits
    let metrics: HubMetrics
    /// Set once while the hub is put together, before anything runs.
    weak var link: (any ShardUplink)?

    /// 0: no batch; 1: a batch is being given out; 2: and the intake has more.
    let load = Atomic<Int>(0)

    private var work = Deque<ShardRoom>()
    private var dirty: [Outlet] = []
    private var isPumping = false
    private var isTurnScheduled = false
    private var hasBatch = false
    private var batchStart: NIODeadline?
    private var delivered = 0
    private var leaving: [Watcher] = []

    private(set) var wheel: [[Outlet]]
    private var wheelPosition = 0
    private var nextSlot = 0
    private var ticker: RepeatedTask?
    var isDegraded = false

    /// Heartbeats are spread over this many moments, so that none of them is a burst.
    private static let wheelSlots = 150

    init(index: Int, eventLoop: any EventLoop, limits: HubLimits, metrics: HubMetrics) {
        self.index = index
        self.eventLoop = eventLoop
        self.limits = limits
        self.metrics = metrics
        self.wheel = Array(repeating: [], count: Self.wheelSlots)
    }

    // MARK: From the intake

    /// One batch; the intake sends the next when this one is done.
    func receive(_ batch: ContiguousArray<(room: ShardRoom, item: RoomItem)>, startedAt: NIODeadline?) {
        eventLoop.assertInEventLoop()
        hasBatch = true
        batchStart = startedAt
        for (room, item) in batch {
            room.backlog.append(item)
            if !room.isScheduled {
                room.isScheduled = true
                work.append(room)
            }
        }
        pump()
    }

    private func pump() {
        guard !isPumping, !isTurnScheduled else { return }
        isPumping = true
        var budget = limits.writesPerTurn
        while budget > 0, let room = work.first {
            serve(room, budget: &budget)
            if room.run == nil, room.done == room.backlog.count {
                room.forgetDone()
                room.isScheduled = false
                work.removeFirst()
            }
        }
        flushDirty()
        isPumping = false
        metrics.deliveries.increment(by: delivered)
        delivered = 0
        if work.isEmpty { finishBatch() } else { scheduleTurn() }
    }

    private func scheduleTurn() {
        isTurnScheduled = true
        eventLoop.scheduleTask(in: limits.turnPause) { [self] in
            isTurnScheduled = false
            pump()
        }
    }

    private func finishBatch() {
        guard hasBatch else { return }
        hasBatch = false
        if let batchStart { metrics.delivery.record(microseconds: Int((eventLoop.now - batchStart).nanoseconds / 1000)) }
        batchStart = nil
        if load.exchange(0, ordering: .acquiringAndReleasing) == 2 { link?.shardIsReady(self) }
    }

    private func serve(_ room: ShardRoom, budget: inout Int) {
        while budget > 0 {
            if room.run == nil {
                guard room.done < room.backlog.count else { return }
                room.run = room.takeRun(limit: limits.joinedWriteBytes)
                room.cursor = 0
                guard room.run != nil else {
                    let item = room.backlog[room.done]
                    room.done += 1
                    budget -= 1
                    handle(item, in: room)
                    continue
                }
            }
            giveOut(room, budget: &budget)
        }
    }

    /// Hands the current run to the next watchers of the room.
    private func giveOut(_ room: ShardRoom, budget: inout Int) {
        guard var run = room.run else { return }
        room.run = nil
        while true {
            if run.isPlain { giveFast(room, &run, &budget) }
            guard budget > 0, room.cursor < room.watchers.count else { break }
            budget -= 1
            let watcher = room.watchers[room.cursor]
            for event in run.events where !watcher.isDetached { give(event, to: watcher) }
            // It may have left while it was served: then another stands in its place.
            if room.cursor < room.watchers.count, room.watchers[room.cursor] === watcher { room.cursor += 1 }
        }
        if room.cursor < room.watchers.count { room.run = run } else { room.cursor = 0 }
    }

    /// Serves watchers that are up to date and whose socket is ready, until one is not. Nobody joins or leaves in here.
    private func giveFast(_ room: ShardRoom, _ run: inout Run, _ budget: inout Int) {
        let (first, last) = (run.first, run.last)
        var bytes: (transport: Transport, buffer: ByteBuffer)?
        var index = room.cursor
        let end = min(room.watchers.count, index + budget)
        budget -= end - index
        let start = index
        room.watchers.withUnsafeBufferPointer { watchers in
            while index < end {
                let watcher = watchers[index]
                let outlet = watcher.outlet
                guard outlet.isWritable, watcher.state.takeRun(first: first, last: last) else { break }
                if let bytes, bytes.transport == outlet.transport {
                    outlet.deliver(bytes.buffer)
                } else {
                    let buffer = run.bytes(for: outlet.transport)
                    bytes = (outlet.transport, buffer)
                    outlet.deliver(buffer)
                }
                index += 1
            }
        }
        budget += end - index
        delivered += (index - start) * run.events.count
        room.cursor = index
    }

    private func handle(_ item: RoomItem, in room: ShardRoom) {
        switch item {
        case .event: break
        case .open(let watcher, let opening): open(watcher, opening, in: room)
        case .refuse(let watcher, let end):
            refuse(watcher, end)
        case .resync:
            for watcher in Array(room.watchers) where watcher.state.isOpen {
                watcher.state.forceResync()
                beginResync(watcher)
                if watcher.outlet.isWritable { drain(watcher.outlet) }
            }
        }
    }

    /// The intake knows it no longer, so nobody is told but the client.
    private func refuse(_ watcher: Watcher, _ reason: WatchEnd) {
        guard !watcher.isDetached else { return }
        watcher.isDetached = true
        let outlet = watcher.outlet
        outlet.remove(watcher)
        let nowMs = WallClock.nowMs()
        let event =
            switch reason {
            case .gone, .terminal:
                OutboundEvent(kind: .gone, seq: 0, phase: .queued, body: EventWriter.gone(job: watcher.job, atMs: nowMs))
            case .refused(let problem):
                OutboundEvent(kind: .control, seq: 0, phase: .queued, body: EventWriter.error(job: watcher.job, problem))
            }
        outlet.write(event.bytes(for: outlet.transport))
        outlet.session?.watchEnded(watcher, reason)
    }

    private func open(_ watcher: Watcher, _ opening: Opening, in room: ShardRoom) {
        guard !watcher.isDetached else { return }
        room.add(watcher)
        if let begin = opening.begin { watcher.state.restart(at: begin) }
        if let reset = opening.reset { give(reset, to: watcher) }
        for event in opening.replay where !watcher.isDetached { give(event, to: watcher) }
        if !watcher.isDetached { give(opening.snapshot, to: watcher) }
        if let place = opening.place, !watcher.isDetached { give(place, to: watcher) }
    }

    /// The slow path: one event for one watcher.
    private func give(_ event: OutboundEvent, to watcher: Watcher) {
        let outlet = watcher.outlet
        switch watcher.state.offer(event, isReady: outlet.isWritable, queueLimit: limits.milestonesPerWatcher) {
        case .write:
            outlet.write(event.bytes(for: outlet.transport))
            delivered += 1
            if watcher.state.isDone { end(watcher, event.kind == .gone ? .gone : .terminal) }
        case .hold:
            outlet.wait(watcher)
        case .conflate:
            metrics.conflated.increment()
            outlet.wait(watcher)
        case .dropStale:
            break
        case .dropLossy:
            metrics.droppedLossy.increment()
        case .resync:
            beginResync(watcher)
        }
    }

    private func beginResync(_ watcher: Watcher) {
        metrics.resyncs.increment()
        watcher.room?.remove(watcher)
        watcher.outlet.wait(watcher)
    }

    private func end(_ watcher: Watcher, _ end: WatchEnd) {
        forget(watcher)
        watcher.outlet.remove(watcher)
        watcher.outlet.session?.watchEnded(watcher, end)
    }

    /// Takes the watcher out of its room and tells the intake, once.
    private func forget(_ watcher: Watcher) {
        guard !watcher.isDetached else { return }
        watcher.isDetached = true
        watcher.room?.remove(watcher)
        if leaving.isEmpty {
            eventLoop.execute { [self] in
                let gone = leaving
                leaving = []
                link?.leave(gone, from: self)
            }
        }
        leaving.append(watcher)
    }

    // MARK: Sockets

    func markDirty(_ outlet: Outlet) { dirty.append(outlet) }

    /// Flushes whatever was written outside a turn, now.
    func flushNow() {
        if !isPumping { flushDirty() }
    }

    private func flushDirty() {
        // A flush may make room for what waits, which makes its outlet dirty again.
        while !dirty.isEmpty {
            let batch = dirty
            dirty = []
            for outlet in batch where outlet.isDirty { outlet.flush() }
        }
    }

    /// The socket takes bytes again: first what waits, in order.
    func drain(_ outlet: Outlet) {
        eventLoop.assertInEventLoop()
        while outlet.isWritable, let watcher = outlet.nextWaiting() {
            if watcher.state.needsResync {
                outlet.dropFirstWaiting()
                let delivered = watcher.state.delivered
                watcher.state.restart(at: delivered)
                link?.rejoin(watcher, since: delivered, from: self)
                continue
            }
            guard let event = watcher.state.next() else {
                outlet.dropFirstWaiting()
                continue
            }
            outlet.write(event.bytes(for: outlet.transport))
            delivered += 1
            if watcher.state.isDone {
                outlet.dropFirstWaiting()
                end(watcher, event.kind == .gone ? .gone : .terminal)
            }
        }
        flushNow()
    }

    // MARK: Connections

    func add(_ outlet: Outlet) {
        eventLoop.assertInEventLoop()
        metrics.sessions[Int(outlet.transport.rawValue)].add(1)
        nextSlot = (nextSlot + 1) % Self.wheelSlots
        outlet.wheelSlot = nextSlot
        outlet.wheelIndex = wheel[nextSlot].count
        wheel[nextSlot].append(outlet)
    }

    func remove(_ outlet: Outlet) {
        eventLoop.assertInEventLoop()
        metrics.sessions[Int(outlet.transport.rawValue)].add(-1)
        for watcher in outlet.watchers { forget(watcher) }
        let slot = outlet.wheelSlot
        wheel[slot].swapAt(outlet.wheelIndex, wheel[slot].count - 1)
        wheel[slot][outlet.wheelIndex].wheelIndex = outlet.wheelIndex
        wheel[slot].removeLast()
    }

    /// Begins to watch; the answers come as events and through the outlet's session.
    /// - Parameter requests: Each with its position in the cursor of a multiplexed stream.
    func watch(_ requests: [(request: WatchRequest, ordinal: Int)], on outlet: Outlet) {
        eventLoop.assertInEventLoop()
        let watchers = requests.map { Watcher(request: $0.request, outlet: outlet, ordinal: $0.ordinal) }
        for watcher in watchers { outlet.add(watcher) }
        link?.join(watchers, from: self)
    }

    func unwatch(_ watcher: Watcher) {
        forget(watcher)
        watcher.outlet.remove(watcher)
    }

    // MARK: Heartbeats, news for everybody

    func start() {
        guard ticker == nil else { return }
        let pause = TimeAmount.nanoseconds(limits.heartbeat.nanoseconds / Int64(Self.wheelSlots))
        ticker = eventLoop.scheduleRepeatedTask(initialDelay: pause, delay: pause) { [weak self] _ in self?.tick() }
    }

    func stop() {
        ticker?.cancel()
        ticker = nil
    }

    private func tick() {
        wheelPosition = (wheelPosition + 1) % Self.wheelSlots
        let outlets = wheel[wheelPosition]
        guard !outlets.isEmpty else { return }
        let now = eventLoop.now
        for outlet in outlets where outlet.isOpen {
            if outlet.isMakingProgress(now: now, deadline: limits.writeDeadline) {
                outlet.session?.heartbeat(now: now)
            } else {
                metrics.stalledSockets.increment()
                outlet.close()
            }
        }
        flushNow()
    }
}
