import Logging
import NIOCore
import Synchronization

/// Chooses a connection for each command, and lets commands wait a short, bounded time while there is none.
final class ClientCore: Sendable {
    private struct Parked {
        let submission: Submission
        var expires: NIODeadline
    }

    private struct Lobby {
        var hasStarted = false
        var isClosed = false
        var isTicking = false
        /// Why the last attempt to connect failed; nil while there was none since a connection worked.
        var lastError: RedisError?
        var waiting: [Parked] = []
    }

    let configuration: RedisConfiguration
    let budget: PendingBudget
    private let slots: [ConnectionSlot]
    private let logger: Logger
    private let turn = Atomic<Int>(0)
    private let lobby = Mutex(Lobby())

    init(configuration: RedisConfiguration, slots: [ConnectionSlot], logger: Logger) {
        self.configuration = configuration
        self.slots = slots
        self.logger = logger
        budget = PendingBudget(limits: configuration.limits)
    }

    var isConnected: Bool { slots.contains { $0.isReady } }

    /// Completes the submission in any case.
    /// - Parameter first: the connection to take when it is up; nil for the one whose turn it is.
    func submit(_ submission: Submission, first: Int? = nil) {
        do throws(RedisError) {
            try budget.acquire(submission.cost)
        } catch {
            return submission.completion.complete(.failure(error))
        }
        if let slot = readySlot(first) { slot.enqueue(submission) } else { park([submission]) }
    }

    /// Round robin over the connections that are up.
    private func readySlot(_ first: Int? = nil) -> ConnectionSlot? {
        let start = first ?? turn.wrappingAdd(1, ordering: .relaxed).oldValue
        for offset in 0..<slots.count {
            let slot = slots[Int(UInt(bitPattern: start &+ offset) % UInt(slots.count))]
            if slot.isReady { return slot }
        }
        return nil
    }

    func start() throws(RedisError) {
        let isFirst = lobby.withLock { lobby in
            defer { lobby.hasStarted = true }
            return !lobby.hasStarted
        }
        guard isFirst else { throw RedisError(.closed, "run() of a RedisClient may be called once") }
        for slot in slots { slot.start(owner: self) }
    }

    func stop() async {
        let waiting = lobby.withLock { lobby in
            lobby.isClosed = true
            defer { lobby.waiting = [] }
            return lobby.waiting
        }
        for parked in waiting { parked.submission.finish(.failure(Self.ended)) }
        for closed in slots.map({ $0.stop() }) { _ = try? await closed.get() }
    }

    private static let ended = RedisError(.closed, "the client has ended")

    /// When nothing can help a command that waits: the reason.
    private static func isHopeless(_ error: RedisError?) -> Bool {
        error?.code == .authentication || error?.code == .invalidConfiguration
    }

    // MARK: The lobby

    /// Moves everything that waits to a connection that is up.
    private func admit() {
        guard let slot = readySlot() else { return }
        let admitted = lobby.withLock { lobby in
            defer { lobby.waiting = [] }
            return lobby.waiting
        }
        for parked in admitted { slot.enqueue(parked.submission) }
    }

    private func scheduleTick() {
        slots[0].eventLoop.scheduleTask(in: configuration.limits.connectionWaitTick) { self.tick() }
    }

    private func tick() {
        admit()
        let now = NIODeadline.now()
        let (expired, error, goesOn, hasStarted) = lobby.withLock { lobby in
            let expired = lobby.waiting.filter { $0.expires <= now }
            if !expired.isEmpty { lobby.waiting.removeAll { $0.expires <= now } }
            lobby.isTicking = !lobby.waiting.isEmpty
            return (expired, lobby.lastError, lobby.isTicking, lobby.hasStarted)
        }
        for parked in expired { parked.submission.finish(.failure(Self.expiry(error, hasStarted: hasStarted))) }
        if goesOn { scheduleTick() }
    }

    private static func expiry(_ error: RedisError?, hasStarted: Bool) -> RedisError {
        if !hasStarted { return RedisError(.unreachable, "no connection to Redis: run() of the RedisClient is not running") }
        return error?.mayHaveRun(false) ?? RedisError(.unreachable, "no connection to Redis yet")
    }
}

extension ClientCore: ConnectionSlotOwner {
    func park(_ submissions: [Submission]) {
        let now = NIODeadline.now()
        let (refusal, startsTicking) = lobby.withLock { lobby -> (RedisError?, Bool) in
            if lobby.isClosed { return (Self.ended, false) }
            if let error = lobby.lastError, Self.isHopeless(error) { return (error.mayHaveRun(false), false) }
            let patience = lobby.lastError == nil ? TimeAmount(configuration.connectTimeout) : configuration.limits.connectionWaitMax
            for submission in submissions {
                lobby.waiting.append(Parked(submission: submission, expires: min(submission.deadline, now + patience)))
            }
            defer { lobby.isTicking = true }
            return (nil, !lobby.isTicking)
        }
        if let refusal {
            for submission in submissions { submission.finish(.failure(refusal)) }
            return
        }
        if startsTicking { scheduleTick() }
        // A slot may have become ready, and looked into the lobby, just before these came in.
        admit()
    }

    func slotIsReady(_ slot: ConnectionSlot) {
        let wasDown = lobby.withLock { lobby in
            defer { lobby.lastError = nil }
            return lobby.lastError != nil
        }
        if wasDown {
            logger.info("redis is reachable again", metadata: ["redis.address": "\(configuration.address)"])
            for other in slots where other !== slot { other.nudge() }
        }
        admit()
    }

    func slotFailed(_ slot: ConnectionSlot, _ error: RedisError) {
        // One connection more or less is no news while another works.
        guard !isConnected else { return }
        let latest = NIODeadline.now() + configuration.limits.connectionWaitMax
        let (hopeless, isNews) = lobby.withLock { lobby -> ([Parked], Bool) in
            let isNews = lobby.lastError?.code != error.code
            lobby.lastError = error
            guard Self.isHopeless(error) else {
                for index in lobby.waiting.indices where lobby.waiting[index].expires > latest { lobby.waiting[index].expires = latest }
                return ([], isNews)
            }
            defer { lobby.waiting = [] }
            return (lobby.waiting, isNews)
        }
        if isNews {
            logger.warning(
                "redis cannot be reached",
                metadata: [
                    "redis.address": "\(configuration.address)", "error.code": "\(error.code)", "error.message": "\(error.message)",
                ]
            )
        }
        for parked in hopeless { parked.submission.finish(.failure(error.mayHaveRun(false))) }
    }
}
