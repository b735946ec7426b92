import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink
import Synchronization
import Telemetry

/// The gateway's table of watchers: one Redis subscription in, any number of sockets out.
///
/// One `HubIntake` on the subscriber's event loop orders the events of each job and reads the truth where needed; one `HubShard`
/// per event loop gives them to the connections that live there. `docs/architecture.md` tells the journey of one update.
final class Hub: Sendable {
    let limits: HubLimits
    let metrics: HubMetrics
    let intake: HubIntake
    let shards: [HubShard]
    private let shardByLoop: [ObjectIdentifier: HubShard]
    private let subscriber: RedisSubscriber?
    private let store: JobStore?
    /// How long waiting jobs wait; nil in a hub without Redis.
    let forecaster: WaitForecaster?
    private let logger: Logger
    private let sessions = Atomic<Int>(0)
    private let draining = Atomic<Int>(0)
    private let degraded = Atomic<Bool>(false)
    private let gatewayID: String
    private let canaryNumber = Atomic<Int>(0)

    /// The real hub.
    init(
        store: JobStore,
        redis: RedisConfiguration,
        group: any EventLoopGroup,
        pipelines: [Pipeline] = [],
        registry: MetricsRegistry,
        limits: HubLimits = .init(),
        logger: Logger
    ) {
        let metrics = HubMetrics(registry: registry)
        let loops = group.makeIterator().map { $0 }
        let shards = loops.enumerated().map { HubShard(index: $0, eventLoop: $1, limits: limits, metrics: metrics) }
        let intake = HubIntake(eventLoop: group.next(), shards: shards, limits: limits, metrics: metrics, logger: logger)
        let subscriber = RedisSubscriber(configuration: redis, eventLoop: intake.eventLoop, logger: logger, delegate: intake)
        let gatewayID = String(UInt64.random(in: 0...UInt64.max), radix: 36)
        let forecaster = WaitForecaster(
            store: store,
            pipelines: pipelines,
            holder: gatewayID,
            limits: limits,
            registry: registry,
            logger: logger
        )
        intake.source = RedisHubSource(store: store, subscriber: subscriber, forecaster: forecaster)
        self.forecaster = forecaster
        self.limits = limits
        self.metrics = metrics
        self.shards = shards
        self.intake = intake
        self.subscriber = subscriber
        self.store = store
        self.logger = logger
        self.gatewayID = gatewayID
        self.shardByLoop = Dictionary(uniqueKeysWithValues: shards.map { (ObjectIdentifier($0.eventLoop), $0) })
        connectHalves()
    }

    /// A hub on a source of its own, for tests: the caller starts it and feeds `intake`.
    init(source: any HubSource, intakeLoop: any EventLoop, loops: [any EventLoop], limits: HubLimits, logger: Logger) {
        let metrics = HubMetrics(registry: MetricsRegistry())
        let shards = loops.enumerated().map { HubShard(index: $0, eventLoop: $1, limits: limits, metrics: metrics) }
        let intake = HubIntake(eventLoop: intakeLoop, shards: shards, limits: limits, metrics: metrics, logger: logger)
        intake.source = source
        self.limits = limits
        self.metrics = metrics
        self.shards = shards
        self.intake = intake
        self.subscriber = nil
        self.store = nil
        self.forecaster = nil
        self.logger = logger
        self.gatewayID = "test"
        self.shardByLoop = Dictionary(uniqueKeysWithValues: shards.map { (ObjectIdentifier($0.eventLoop), $0) })
        connectHalves()
    }

    private func connectHalves() {
        for shard in shards { shard.link = intake }
        intake.onDegraded = { [weak self] in self?.degraded.store($0, ordering: .relaxed) }
    }

    /// Starts the clocks; `run` does it too.
    func start() {
        for shard in shards { shard.eventLoop.execute { shard.start() } }
        intake.eventLoop.execute { [intake] in intake.start() }
    }

    /// Runs until the task is cancelled. Connections stay open: whoever ends the process drains them first.
    func run() async throws {
        start()
        defer {
            for shard in shards { shard.eventLoop.execute { shard.stop() } }
            intake.eventLoop.execute { [intake] in intake.stop() }
        }
        try await subscriber?.run()
    }

    // MARK: Health

    /// The subscription works as far as this end can tell; `probe` finds out.
    var isLinkHealthy: Bool { (subscriber?.isConnected ?? true) && !degraded.load(ordering: .relaxed) }

    /// Publishes through Redis on a channel of this gateway and waits for it on the subscription: the whole way an event takes.
    func probe() async -> Bool {
        guard let subscriber, let store else { return false }
        let channel = store.keys.canary(gatewayID)
        let nonce = ByteBuffer(string: "\(gatewayID)-\(canaryNumber.wrappingAdd(1, ordering: .relaxed).newValue)")
        let promise = intake.eventLoop.makePromise(of: Bool.self)
        let intake = intake
        let deadline = intake.eventLoop.scheduleTask(in: limits.canaryTimeout) {
            intake.canaries.removeValue(forKey: nonce)
            promise.succeed(false)
        }
        let needsSubscription = try? await intake.eventLoop.submit {
            defer { intake.canaryChannel = ByteBuffer(string: channel) }
            intake.canaries[nonce] = promise
            return intake.canaryChannel == nil
        }.get()
        // The time limit covers all of it: an acknowledgement or a reply that does not come fails the canary too.
        let publish = intake.eventLoop.makeFutureWithTask {
            if needsSubscription == true { try await subscriber.subscribe([channel]).get() }
            _ = try await store.redis.send(["PUBLISH", .string(channel), .buffer(nonce)])
        }
        publish.whenFailure { _ in
            intake.canaries.removeValue(forKey: nonce)
            promise.succeed(false)
        }
        let isAlive = (try? await promise.futureResult.get()) ?? false
        deadline.cancel()
        return isAlive
    }

    // MARK: Connections

    /// Live connections of every kind.
    var sessionCount: Int { sessions.load(ordering: .relaxed) }

    /// Takes a place, or says no.
    func admitSession() -> Bool {
        guard sessions.wrappingAdd(1, ordering: .relaxed).newValue <= limits.sessions else {
            sessions.wrappingSubtract(1, ordering: .relaxed)
            metrics.refused.increment()
            return false
        }
        return true
    }

    func sessionEnded() { sessions.wrappingSubtract(1, ordering: .relaxed) }

    /// The shard of a connection's event loop.
    func shard(for eventLoop: any EventLoop) -> HubShard {
        guard let shard = shardByLoop[ObjectIdentifier(eventLoop)] else {
            preconditionFailure("a connection lives on an event loop that is not of the hub's group")
        }
        return shard
    }

    var isDraining: Bool { draining.load(ordering: .relaxed) > 0 }

    /// When a connection that finds no place should come back.
    func reconnectMs() -> Int {
        let window = draining.load(ordering: .relaxed)
        if window > 0 { return Int.random(in: 0...window) }
        let pause = Int(limits.retryAfterOverload.nanoseconds / 1_000_000)
        return Int.random(in: pause...2 * pause)
    }

    /// Every connection gets its own moment within `window` to come back, and is closed.
    func drain(over window: Duration) {
        let windowMs = max(1, Int(window.components.seconds * 1000 + window.components.attoseconds / 1_000_000_000_000_000))
        draining.store(windowMs, ordering: .relaxed)
        for shard in shards {
            shard.eventLoop.execute { shard.drainAll(over: .milliseconds(Int64(windowMs))) }
        }
    }

    // MARK: Long-polls

    /// Waits until the job has something newer than `after`, ends, or `waitMs` is over.
    func poll(_ job: JobID, principal: Principal, after: Int, waitMs: Int) async throws -> PollResult {
        let promise = intake.eventLoop.makePromise(of: PollResult.self)
        let wait = TimeAmount.milliseconds(Int64(max(0, min(waitMs, 86_400_000))))
        intake.eventLoop.execute { [intake] in intake.poll(job, principal: principal, after: after, wait: wait, promise: promise) }
        return try await promise.futureResult.get()
    }
}
