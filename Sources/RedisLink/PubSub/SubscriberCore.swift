import Logging
import NIOCore

/// Keeps one subscription connection, tells it what is wanted, and tells the delegate what becomes of it.
///
/// Everything here happens on one event loop.
final class SubscriberCore {
    private enum Phase {
        case idle
        case connecting
        case ready(SubscriberHandler, any Channel, since: NIODeadline)
        case waiting(Scheduled<Void>)
        case closed
    }

    private let connector: Connector
    private let limits: RedisLimits
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let onConnectedChange: @Sendable (Bool) -> Void
    /// Dropped at the end, so that a delegate that owns its subscriber is no cycle for ever.
    private var delegate: (any RedisSubscriberDelegate)?
    private var table: SubscriptionTable
    private var phase = Phase.idle
    private var backoff: Backoff
    private var tickets = CircularBuffer<SubscribeTicket>()
    private var isFlushScheduled = false
    private var isTicking = false
    /// The delegate was told of a loss and not yet of the end of it.
    private var isLost = false
    private var lastError: RedisError?

    init(
        connector: Connector,
        eventLoop: any EventLoop,
        logger: Logger,
        delegate: any RedisSubscriberDelegate,
        random: @escaping @Sendable () -> Double,
        onConnectedChange: @escaping @Sendable (Bool) -> Void
    ) {
        self.connector = connector
        self.eventLoop = eventLoop
        self.logger = logger
        self.delegate = delegate
        self.onConnectedChange = onConnectedChange
        limits = connector.configuration.limits
        table = SubscriptionTable(limits: limits)
        backoff = Backoff(limits: limits, random: random)
    }

    // MARK: Wishes

    func subscribe(_ channels: [String], _ promise: EventLoopPromise<Void>) {
        if case .closed = phase { return promise.fail(Self.ended) }
        if let error = refusal(channels) { return promise.fail(error) }
        let ticket = SubscribeTicket(channels: channels.count, deadline: eventLoop.now + limits.subscribeTimeout, promise: promise)
        for channel in channels { table.subscribe(channel, ticket) }
        guard !ticket.isDone else { return }
        tickets.append(ticket)
        startTicking()
        scheduleFlush()
    }

    func unsubscribe(_ channels: [String]) {
        for channel in channels { table.unsubscribe(channel) }
        scheduleFlush()
        checkRestored()
    }

    private func refusal(_ channels: [String]) -> RedisError? {
        guard table.wantedCount + channels.count <= limits.channelsMax else {
            return RedisError(.tooManyPending, "more than \(limits.channelsMax) channels on one subscriber")
        }
        guard channels.allSatisfy({ !$0.isEmpty && $0.utf8.count <= limits.channelNameBytesMax }) else {
            return RedisError(.invalidConfiguration, "a channel's name must have 1 to \(limits.channelNameBytesMax) bytes")
        }
        return nil
    }

    /// Wishes of one turn of the loop go out together.
    private func scheduleFlush() {
        guard !isFlushScheduled, case .ready = phase, table.hasQueued else { return }
        isFlushScheduled = true
        eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    private func flush() {
        guard case .ready(let handler, _, _) = phase else { return }
        var commands: [SubscriptionTable.Command] = []
        while let command = table.nextCommand() { commands.append(command) }
        if !commands.isEmpty { handler.send(commands) }
    }

    func probe(_ promise: EventLoopPromise<Bool>, timeout: TimeAmount) {
        guard case .ready(let handler, _, _) = phase else { return promise.succeed(false) }
        handler.probe(promise, timeout: timeout)
    }

    // MARK: Life

    func start() throws(RedisError) {
        guard case .idle = phase else { throw RedisError(.closed, "run() of a RedisSubscriber may be called once") }
        startTicking()
        connect()
    }

    /// The future of the connection's end, if there is one.
    func stop() -> EventLoopFuture<Void>? {
        let before = phase
        phase = .closed
        delegate = nil
        onConnectedChange(false)
        while let ticket = tickets.popFirst() { ticket.end(Self.ended) }
        switch before {
        case .ready(let handler, let channel, _):
            handler.close(Self.ended)
            return channel.closeFuture
        case .waiting(let timer):
            timer.cancel()
            return nil
        case .idle, .connecting, .closed: return nil
        }
    }

    private static let ended = RedisError(.closed, "the subscriber has ended")

    private func connect() {
        phase = .connecting
        connector.connect(on: eventLoop).assumeIsolated().whenComplete { result in
            switch result {
            case .success(let channel): self.connected(channel)
            case .failure(let error): self.failed(error as? RedisError ?? RedisError(.unreachable, "\(error)"))
            }
        }
    }

    private func connected(_ channel: any Channel) {
        guard case .connecting = phase, let delegate else { return channel.close(promise: nil) }
        let handler = SubscriberHandler(delegate: delegate, owner: self, limits: limits)
        do {
            try channel.pipeline.syncOperations.addHandler(handler)
        } catch {
            channel.close(promise: nil)
            return failed(RedisError(.unreachable, "the connection closed at once"))
        }
        phase = .ready(handler, channel, since: eventLoop.now)
        lastError = nil
        onConnectedChange(true)
        channel.closeFuture.assumeIsolated().whenComplete { _ in self.lost(handler) }
        table.connectionReady(isRestore: isLost)
        flush()
        checkRestored()
    }

    private func lost(_ handler: SubscriberHandler) {
        guard case .ready(_, _, let since) = phase else { return }
        onConnectedChange(false)
        if eventLoop.now - since >= limits.stableConnection { backoff.reset() }
        logger.warning(
            "redis subscription connection was lost",
            metadata: [
                "redis.address": "\(connector.configuration.address)",
                "error.code": "\(handler.closeReason?.code ?? .connectionLost)",
            ]
        )
        table.connectionLost()
        retryLater()
        if !isLost {
            isLost = true
            delegate?.redisSubscriptionsLost()
        }
    }

    private func failed(_ error: RedisError) {
        guard case .connecting = phase else { return }
        if lastError?.code != error.code {
            logger.warning(
                "redis subscription connection cannot be opened",
                metadata: [
                    "redis.address": "\(connector.configuration.address)", "error.code": "\(error.code)",
                    "error.message": "\(error.message)",
                ]
            )
        }
        lastError = error
        retryLater()
        // No reconnect helps against a wrong password.
        if error.code == .authentication || error.code == .invalidConfiguration {
            while let ticket = tickets.popFirst() { ticket.end(error) }
        }
    }

    private func retryLater() {
        phase = .waiting(eventLoop.assumeIsolated().scheduleTask(in: backoff.next()) { self.connect() })
    }

    // MARK: Watch

    private func startTicking() {
        guard !isTicking else { return }
        isTicking = true
        eventLoop.assumeIsolated().scheduleTask(in: limits.watchTick) {
            self.isTicking = false
            self.tick()
        }
    }

    private func tick() {
        // Same time-out for all: the oldest are in front.
        while let ticket = tickets.first, ticket.isDone || ticket.deadline <= eventLoop.now {
            tickets.removeFirst()
            ticket.end(lastError ?? RedisError(.timeout, "Redis did not acknowledge the subscription in time"))
        }
        switch phase {
        case .closed: return
        case .idle:
            // Nothing to watch before `run()`, except those who wait.
            if !tickets.isEmpty { startTicking() }
        case .ready(let handler, _, _):
            handler.watch()
            startTicking()
        case .connecting, .waiting: startTicking()
        }
    }

    private func checkRestored() {
        guard isLost, case .ready = phase, table.restoring == 0 else { return }
        isLost = false
        logger.info("redis subscriptions are restored", metadata: ["redis.address": "\(connector.configuration.address)"])
        delegate?.redisSubscriptionsRestored()
    }
}

extension SubscriberCore: SubscriberHandlerOwner {
    func acknowledgedSubscribe(_ channel: String) {
        table.acknowledgedSubscribe(channel)
        checkRestored()
    }

    func acknowledgedUnsubscribe(_ channel: String) { table.acknowledgedUnsubscribe(channel) }

    func refused(_ channels: [String], _ error: RedisError) {
        logger.error("redis refused a subscription", metadata: ["error.code": "\(error.code)", "error.message": "\(error.message)"])
        table.refused(channels, error)
        checkRestored()
    }

    /// Room for more: sent in large pieces, not one command per acknowledgement.
    func readComplete() {
        if table.hasQueued, table.unacknowledged <= limits.unacknowledgedChannelsMax / 2 { flush() }
    }
}
