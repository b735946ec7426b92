import Logging
import NIOCore
import Synchronization

/// Whoever is told about the fate of a slot's connection.
protocol ConnectionSlotOwner: AnyObject, Sendable {
    func slotIsReady(_ slot: ConnectionSlot)
    func slotFailed(_ slot: ConnectionSlot, _ error: RedisError)
    /// Commands that were handed to the slot and certainly not sent.
    func park(_ submissions: [Submission])
}

/// One place in the pool: keeps one pipelined connection open, and opens it again when it is lost.
///
/// Any thread may hand in commands; they are collected in the inbox, and one hop to the event loop takes all that are there.
final class ConnectionSlot: Sendable {
    private enum Phase {
        case stopped
        case connecting
        case ready(CommandHandler, since: NIODeadline)
        case waiting(Scheduled<Void>)
    }

    private struct Inbox {
        var submissions: [Submission] = []
        /// Of the last drain, emptied: commands come and go without new memory for their list.
        var spare: [Submission] = []
    }

    private struct LoopState {
        var phase = Phase.stopped
        var owner: (any ConnectionSlotOwner)?
        var channel: (any Channel)?
        var backoff: Backoff
    }

    /// Commands that arrive within one turn of the loop, usually.
    private static let spareCapacity = 64

    let eventLoop: any EventLoop
    private let connector: Connector
    private let limits: RedisLimits
    private let logger: Logger
    private let ready = Atomic<Bool>(false)
    private let inbox = Mutex(Inbox())
    private let state: NIOLoopBoundBox<LoopState>

    init(
        eventLoop: any EventLoop,
        connector: Connector,
        random: @escaping @Sendable () -> Double = { Double.random(in: 0...1) },
        logger: Logger
    ) {
        self.eventLoop = eventLoop
        self.connector = connector
        self.logger = logger
        limits = connector.configuration.limits
        state = .makeBoxSendingValue(LoopState(backoff: Backoff(limits: limits, random: random)), eventLoop: eventLoop)
    }

    var isReady: Bool { ready.load(ordering: .acquiring) }

    // MARK: From any thread

    func enqueue(_ submission: Submission) {
        let isFirst = inbox.withLock { inbox in
            inbox.submissions.append(submission)
            return inbox.submissions.count == 1
        }
        if isFirst { eventLoop.execute { self.drain() } }
    }

    func start(owner: any ConnectionSlotOwner) {
        eventLoop.execute {
            self.state.value.owner = owner
            self.connect()
        }
    }

    /// Another slot found the server alive: do not sleep on.
    func nudge() {
        eventLoop.execute {
            guard case .waiting(let timer) = self.state.value.phase else { return }
            timer.cancel()
            self.connect()
        }
    }

    /// Closes the connection for good; completes when it is closed.
    func stop() -> EventLoopFuture<Void> {
        eventLoop.submit {
            let (phase, channel) = (self.state.value.phase, self.state.value.channel)
            self.state.value.phase = .stopped
            self.state.value.owner = nil
            self.ready.store(false, ordering: .releasing)
            switch phase {
            case .waiting(let timer): timer.cancel()
            case .ready(let handler, _): handler.close(RedisError(.closed, "the client has ended"))
            case .stopped, .connecting: break
            }
            self.drain()
            return channel
        }.flatMap { (channel: (any Channel)?) in
            channel?.closeFuture ?? self.eventLoop.makeSucceededVoidFuture()
        }
    }

    // MARK: On the loop

    private func drain() {
        var submissions = inbox.withLock { inbox in
            var taken: [Submission] = []
            swap(&taken, &inbox.submissions)
            swap(&inbox.submissions, &inbox.spare)
            return taken
        }
        guard !submissions.isEmpty else { return }
        defer {
            if submissions.capacity <= Self.spareCapacity {
                submissions.removeAll(keepingCapacity: true)
                inbox.withLock { swap(&$0.spare, &submissions) }
            }
        }
        if case .ready(let handler, _) = state.value.phase {
            if handler.submit(submissions) { return }
            // Closed, and `lost()` has not run yet: take nothing more.
            ready.store(false, ordering: .releasing)
        }
        if let owner = state.value.owner { return owner.park(submissions) }
        for submission in submissions { submission.finish(.failure(RedisError(.closed, "the client has ended"))) }
    }

    private func connect() {
        guard state.value.owner != nil else { return }
        state.value.phase = .connecting
        connector.connect(on: eventLoop).whenComplete { result in
            switch result {
            case .success(let channel): self.connected(channel)
            case .failure(let error):
                self.failed(error as? RedisError ?? RedisError(.unreachable, "\(error)"))
            }
        }
    }

    private func connected(_ channel: any Channel) {
        guard let owner = state.value.owner else { return channel.close(promise: nil) }
        let handler = CommandHandler(limits: limits)
        do {
            try channel.pipeline.syncOperations.addHandler(handler)
        } catch {
            channel.close(promise: nil)
            return failed(RedisError(.unreachable, "the connection closed at once"))
        }
        state.value.phase = .ready(handler, since: eventLoop.now)
        state.value.channel = channel
        ready.store(true, ordering: .releasing)
        logger.debug("redis connection is ready", metadata: ["redis.address": "\(connector.configuration.address)"])
        channel.closeFuture.whenComplete { _ in self.lost() }
        owner.slotIsReady(self)
    }

    private func lost() {
        ready.store(false, ordering: .releasing)
        state.value.channel = nil
        guard case .ready(_, let since) = state.value.phase else { return }
        // A server that accepts and hangs up at once must not be courted without pause.
        if eventLoop.now - since >= limits.stableConnection { state.value.backoff.reset() }
        logger.warning("redis connection was lost", metadata: ["redis.address": "\(connector.configuration.address)"])
        retryLater()
    }

    private func failed(_ error: RedisError) {
        guard let owner = state.value.owner else { return }
        logger.debug(
            "redis connection failed",
            metadata: ["redis.address": "\(connector.configuration.address)", "error.code": "\(error.code)"]
        )
        retryLater()
        owner.slotFailed(self, error)
    }

    private func retryLater() {
        let delay = state.value.backoff.next()
        state.value.phase = .waiting(eventLoop.assumeIsolated().scheduleTask(in: delay) { self.connect() })
    }
}
