import NIOCore
import ProgressCore

/// What every connection of a shard is told.
extension HubShard {
    /// Redis is out of reach, or back: every connection is told once.
    func setDegraded(_ isDegraded: Bool) {
        eventLoop.assertInEventLoop()
        guard isDegraded != self.isDegraded else { return }
        self.isDegraded = isDegraded
        let event = OutboundEvent(
            kind: .control,
            seq: 0,
            phase: .queued,
            body: EventWriter.degraded(isActive: isDegraded, atMs: WallClock.nowMs()),
            for: [.webSocket, .eventStream]
        )
        sweep(wheel.flatMap { $0 }) { outlet, _ in outlet.write(event.bytes(for: outlet.transport)) }
    }

    /// Every connection is given its own moment in the window to come back, and closed.
    func drainAll(over window: TimeAmount) {
        let outlets = wheel.flatMap { $0 }
        let windowMs = Double(window.nanoseconds) / 1_000_000
        sweep(outlets) { outlet, index in
            // Evenly spread, with jitter of one slot: independent of how the other loops and gateways do it.
            let share = (Double(index) + Double.random(in: 0..<1)) / Double(outlets.count)
            outlet.session?.drain(reconnectAfterMs: Int(share * windowMs))
        }
    }

    /// Does `body` for each outlet that is still open, in turns.
    private func sweep(_ outlets: [Outlet], from start: Int = 0, _ body: @escaping @Sendable (Outlet, Int) -> Void) {
        let end = min(outlets.count, start + limits.writesPerTurn)
        for index in start..<end where outlets[index].isOpen { body(outlets[index], index) }
        flushNow()
        guard end < outlets.count else { return }
        eventLoop.scheduleTask(in: limits.turnPause) { [self] in sweep(outlets, from: end, body) }
    }
}

/// The way from a shard back to the intake, which lives on another loop.
protocol ShardUplink: AnyObject, Sendable {
    func join(_ watchers: [Watcher], from shard: HubShard)
    func rejoin(_ watcher: Watcher, since: Int, from shard: HubShard)
    func leave(_ watchers: [Watcher], from shard: HubShard)
    /// The batch is done and more waits.
    func shardIsReady(_ shard: HubShard)
}
