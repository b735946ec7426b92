import AsyncHTTPClient
import Glibc
public import JobStore
public import Logging
public import NIOCore
public import ProgressCore
public import RedisLink
public import ServiceLifecycle
import Synchronization
public import Telemetry

/// Takes jobs from queues and drives a backend through them, several at once.
///
/// On graceful shutdown no more jobs are claimed; running ones may finish within the grace, then they are stopped and handed
/// back. When Redis goes away running jobs go on; their newest progress is written on return, if the lease still counts.
public final class Worker: Service {
    private struct State {
        var isDraining = false
        /// By fence: a job that was lost may be claimed again while its old run is still stopping.
        var running: [String: Running] = [:]
        var claims = 0
        /// Pipelines of which a job ran here.
        var seenPipelines: Set<String> = []
    }

    private struct Running {
        let job: JobID
        let stop: StopOrder
        let heartbeat: Doorbell
    }

    private let configuration: WorkerConfiguration
    private let store: any WorkerStore
    private let hints: (configuration: RedisConfiguration, channel: String)?
    private let pipelines: [String: Pipeline]
    private let backend: any GeneratorBackend
    private let metrics: WorkerMetrics
    private let group: any EventLoopGroup
    private let logger: Logger
    private let state = Mutex(State())
    private let crashLoop = Mutex((guard: CrashLoopGuard(), pause: Duration.zero))
    /// Rung when a slot became free or the worker shuts down.
    private let slotBell = Doorbell()
    /// Rung when the worker shuts down, for whoever waits for something else: the claim loop, and the end of the grace.
    private let interruptBell = Doorbell()
    private let drainBell = Doorbell()

    /// - Parameters:
    ///   - pipelines: those whose stages are known; others are followed by the configured one.
    ///   - redis: for the subscription that speeds cancels up.
    public convenience init(
        configuration: WorkerConfiguration,
        store: JobStore,
        redis: RedisConfiguration,
        pipelines: [Pipeline],
        backend: any GeneratorBackend,
        registry: MetricsRegistry,
        group: any EventLoopGroup,
        logger: Logger
    ) {
        self.init(
            configuration: configuration,
            store: store,
            hints: (redis, store.keys.workerHints(configuration.name)),
            pipelines: pipelines,
            backend: backend,
            registry: registry,
            group: group,
            logger: logger
        )
    }

    init(
        configuration: WorkerConfiguration,
        store: any WorkerStore,
        hints: (configuration: RedisConfiguration, channel: String)?,
        pipelines: [Pipeline],
        backend: any GeneratorBackend,
        registry: MetricsRegistry,
        group: any EventLoopGroup,
        logger: Logger
    ) {
        self.configuration = configuration
        self.store = store
        self.hints = hints
        self.pipelines = Dictionary(pipelines.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        self.backend = backend
        self.metrics = WorkerMetrics(registry)
        self.group = group
        self.logger = logger
    }

    private var environment: WorkerEnvironment { configuration.environment }
    private var isDraining: Bool { state.withLock { $0.isDraining } }

    /// Serves until graceful shutdown or cancellation.
    ///
    /// - Throws: `WorkerError` when the configuration or the work directory cannot be used.
    public func run() async throws {
        try configuration.validate()
        let gateway = configuration.gatewayURL.flatMap { $0.isEmpty ? nil : $0 }
        let directory = try WorkerDirectory(
            name: configuration.name,
            in: configuration.workDirectory,
            removesLeftovers: gateway != nil
        )
        let client = HTTPClient(eventLoopGroupProvider: .shared(group))
        let files = gateway.map { url in
            GatewayFiles(
                client: client,
                base: url.hasSuffix("/") ? String(url.dropLast()) : url,
                metrics: metrics,
                environment: environment
            )
        }
        await withGracefulShutdownHandler {
            await serve(directory: directory.path, files: files)
        } onGracefulShutdown: {
            self.drain()
        }
        try? await client.shutdown()
        directory.removeIfEmpty()
    }

    /// No more claims; the rest follows. What a graceful shutdown calls.
    func drain() {
        state.withLock { $0.isDraining = true }
        slotBell.ring()
        interruptBell.ring()
        drainBell.ring()
    }

    private func serve(directory: String, files: GatewayFiles?) async {
        logger.info("worker serves", metadata: ["worker.id": "\(configuration.name)"])
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.keepRegistered() }
            group.addTask { await self.keepReaping() }
            group.addTask { await self.listenForHints() }
            group.addTask { await self.endGrace() }
            await claimAndRun(directory: directory, files: files)
            group.cancelAll()
        }
        // A short task of its own: the worker's may be cancelled, and its record should not look alive for longer than it is.
        let store = store
        let name = configuration.name
        await Task { try? await store.removeWorker(name) }.value
        logger.info("worker stopped", metadata: ["worker.id": "\(configuration.name)"])
    }

    // MARK: Claiming

    /// Claims while there is room, and stays until the last job has ended.
    private func claimAndRun(directory: String, files: GatewayFiles?) async {
        await withDiscardingTaskGroup { group in
            while !isDraining, !Task.isCancelled {
                guard state.withLock({ $0.running.count }) < configuration.concurrency else {
                    await slotBell.wait(atMost: WorkerLimits.longestWait)
                    continue
                }
                let pause = crashLoop.withLock { loop in
                    defer { loop.pause = .zero }
                    return loop.pause
                }
                if pause > .zero {
                    logger.warning("jobs fail at once, one after another: slowing down", metadata: ["worker.id": "\(configuration.name)"])
                    await pauseUnlessDraining(pause)
                    continue
                }
                guard let claim = await nextClaim() else { continue }
                let run = makeRun(claim, directory: directory, files: files)
                group.addTask {
                    let (end, failedAfterMs) = await run.run()
                    self.metrics.count(end)
                    self.crashLoop.withLock { loop in
                        let pause = loop.guard.note(failedAfterMs: failedAfterMs, random: self.environment.random())
                        loop.pause = max(loop.pause, pause)
                    }
                    self.state.withLock { _ = $0.running.removeValue(forKey: claim.lease.fence) }
                    self.metrics.running.add(-1)
                    self.logger.info(
                        "job ended",
                        metadata: ["job.id": "\(claim.lease.job)", "outcome": "\(end.rawValue)", "attempt": "\(claim.attempt)"]
                    )
                    self.slotBell.ring()
                }
            }
        }
    }

    /// The next job, or nil after a wait in which none came.
    private func nextClaim() async -> Claim? {
        var nextDueMs: Int?
        for queue in configuration.queues {
            switch await claim(queue) {
            case .job(let claim)?: return claim
            case .empty(let due)?: nextDueMs = [nextDueMs, due].compactMap { $0 }.min()
            case .paused?: break
            case nil: return nil
            }
            if isDraining { return nil }
        }
        let wait = min(WorkerLimits.longestWait, nextDueMs.map { .milliseconds(max($0, 10)) } ?? WorkerLimits.longestWait)
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                do throws(StoreError) {
                    try await self.store.waitForWork(
                        queues: self.configuration.queues,
                        labels: self.configuration.labels,
                        atMost: wait
                    )
                } catch {
                    guard !Task.isCancelled else { return }
                    self.metrics.storeErrors.increment()
                    try? await Task.sleep(for: .milliseconds(WorkerLimits.retryDelayMs.lowerBound))
                }
            }
            group.addTask { await self.pauseUnlessDraining(.seconds(3600)) }
            await group.next()
            group.cancelAll()
        }
        return nil
    }

    private func pauseUnlessDraining(_ time: Duration) async {
        if !isDraining { await interruptBell.wait(atMost: time) }
    }

    /// One claim, repeated under the same nonce while its reply is in doubt: a lost reply must not lose a job.
    private func claim(_ queue: String) async -> ClaimOutcome? {
        let nonce = environment.makeNonce()
        let startMs = environment.nowMs()
        var backoff = Backoff()
        var isInDoubt = false
        while !Task.isCancelled {
            do throws(StoreError) {
                let outcome = try await store.claim(
                    queue: queue,
                    worker: configuration.name,
                    nonce: nonce,
                    labels: configuration.labels
                )
                if case .job = outcome { metrics.claims.increment() }
                return outcome
            } catch {
                metrics.storeErrors.increment()
                isInDoubt = isInDoubt || error.mayHaveRun
                let patience = isDraining ? store.settings.heartbeat : WorkerLimits.claimRetry
                let isOver = environment.nowMs() - startMs >= patience.wholeMilliseconds
                if isOver || (isDraining && !isInDoubt) { return nil }
                logger.debug("claim failed", metadata: ["queue.name": "\(queue)", "error.code": "\(error.code.rawValue)"])
                let delay = backoff.next(random: environment.random())
                if isInDoubt { try? await Task.sleep(for: delay) } else { await pauseUnlessDraining(delay) }
            }
        }
        return nil
    }

    private func makeRun(_ claim: Claim, directory: String, files: GatewayFiles?) -> JobRun {
        let stop = StopOrder()
        let heartbeat = Doorbell()
        let (number, isDraining, isFirst) = state.withLock { state in
            state.running[claim.lease.fence] = Running(job: claim.lease.job, stop: stop, heartbeat: heartbeat)
            state.claims += 1
            // Names come from submitters; a forgotten one only costs a hint.
            if state.seenPipelines.count == WorkerLimits.seenPipelines { state.seenPipelines.removeAll() }
            return (state.claims, state.isDraining, state.seenPipelines.insert(claim.pipeline).inserted)
        }
        metrics.running.add(1)
        // Claimed in the moment of the shutdown: straight back.
        if isDraining { stop.give(.shutdown) }
        let pipeline = pipelines[claim.pipeline] ?? pipelines[configuration.pipeline] ?? Pipeline(name: claim.pipeline, stages: [])
        logger.info("job claimed", metadata: ["job.id": "\(claim.lease.job)", "attempt": "\(claim.attempt)"])
        return JobRun(
            claim: claim,
            store: store,
            backend: backend,
            files: files,
            configuration: configuration,
            pipeline: pipeline,
            directory: "\(directory)/job-\(claim.lease.job)-\(number)",
            metrics: metrics,
            logger: logger,
            stop: stop,
            heartbeatBell: heartbeat,
            isFirstOfItsPipeline: isFirst,
            isShuttingDown: { [weak self] in self?.isDraining ?? true }
        )
    }

    // MARK: Shutdown

    /// Waits for the shutdown, then for the grace, and then stops what still runs.
    private func endGrace() async {
        while !isDraining {
            if Task.isCancelled { return }
            await drainBell.wait(atMost: .seconds(3600))
        }
        do {
            try await Task.sleep(for: configuration.shutdownGrace)
        } catch {
            return
        }
        for running in state.withLock({ Array($0.running.values) }) { running.stop.give(.shutdown) }
    }

    // MARK: Around the jobs

    /// Tells who this worker is and what it does, as often as its leases are renewed.
    private func keepRegistered() async {
        let startedAtMs = environment.unixMs()
        var hasQueues = false
        while !Task.isCancelled {
            let (jobs, isDraining) = state.withLock { (Set($0.running.values.map(\.job.text)).sorted(), $0.isDraining) }
            do throws(StoreError) {
                if !hasQueues {
                    try await store.registerQueues(configuration.queues)
                    hasQueues = true
                }
                try await store.registerWorker(
                    WorkerRecord(
                        id: configuration.name,
                        host: configuration.host,
                        pid: Int(getpid()),
                        version: configuration.version,
                        queues: configuration.queues,
                        pipeline: configuration.pipeline,
                        concurrency: configuration.concurrency,
                        jobs: jobs,
                        isDraining: isDraining,
                        startedAtMs: startedAtMs
                    )
                )
            } catch {
                if !Task.isCancelled { logger.debug("worker not registered", metadata: ["error.code": "\(error.code.rawValue)"]) }
            }
            try? await Task.sleep(for: store.settings.heartbeat)
        }
    }

    /// Any live process does this; a worker is one.
    private func keepReaping() async {
        while !Task.isCancelled {
            // A tenth more or less, so that workers that started together do not stay together.
            let jitter = 0.9 + 0.2 * environment.random()
            try? await Task.sleep(for: WorkerLimits.reapInterval * jitter)
            for queue in configuration.queues where !Task.isCancelled {
                do throws(StoreError) {
                    let report = try await store.reap(queue: queue)
                    if report.requeued + report.ended > 0 {
                        logger.info(
                            "jobs reaped",
                            metadata: ["queue.name": "\(queue)", "requeued": "\(report.requeued)", "ended": "\(report.ended)"]
                        )
                    }
                } catch {
                    metrics.storeErrors.increment()
                }
            }
        }
    }

    /// Cancels reach a worker with its next heartbeat in any case; the subscription makes that heartbeat come at once.
    private func listenForHints() async {
        guard let hints else { return }
        let listener = HintListener { [weak self] job in
            guard let self else { return }
            let bells = self.state.withLock { $0.running.values.filter { $0.job.text == job }.map(\.heartbeat) }
            for bell in bells { bell.ring() }
        }
        let subscriber = RedisSubscriber(
            configuration: hints.configuration,
            eventLoop: group.next(),
            logger: logger,
            delegate: listener
        )
        // Nobody waits for it: the subscriber subscribes when it is connected, and again after every loss.
        _ = subscriber.subscribe([hints.channel])
        do {
            try await subscriber.run()
        } catch {
            if !Task.isCancelled { logger.debug("no cancel hints", metadata: ["worker.id": "\(configuration.name)"]) }
        }
    }
}

/// Takes the job's id out of a hint.
private final class HintListener: RedisSubscriberDelegate {
    private let receive: @Sendable (String) -> Void

    init(_ receive: @escaping @Sendable (String) -> Void) { self.receive = receive }

    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) { receive(String(buffer: payload)) }
    func redisSubscriptionsLost() {}
    func redisSubscriptionsRestored() {}
    func redisReadComplete() {}
}
