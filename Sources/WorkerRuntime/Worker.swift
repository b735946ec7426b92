import AsyncHTTPClient
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
/// back. A worker that is told to drain lets them finish however long they take, and ends. When Redis goes away running jobs go
/// on; their newest progress is written on return, if the lease still counts.
public final class Worker: Service {
    enum Stage: Int, Comparable {
        case serving
        /// No more claims; what runs may finish.
        case draining
        /// The same, with the shutdown grace running.
        case stopping

        static func < (a: Stage, b: Stage) -> Bool { a.rawValue < b.rawValue }
    }

    struct State {
        var stage = Stage.serving
        /// By fence: a job that was lost may be claimed again while its old run is still stopping.
        var running: [String: JobRun] = [:]
        /// A timer looks after those that began lately.
        var isWatchingStarts = false
        /// The worker was cancelled, and with it whatever begins.
        var isCancelled = false
        var claims = 0
        /// While it waits for work.
        var wait: Task<Void, Never>?
        /// The last claim left nothing in the line: what comes later leaves a token.
        var isLineEmpty = false
        /// Pipelines of which a job ran here.
        var seenPipelines: Set<String> = []
        var finished = 0
        var failed = 0
        var crashLoop = CrashLoopGuard()
        var reaps: ReapSchedule
        var gpus: [WorkerRecord.GPU] = []
        var isLookingAtGPUs = false
    }

    let configuration: WorkerConfiguration
    let store: any WorkerStore
    let hints: (configuration: RedisConfiguration, channel: String)?
    let pipelines: [String: Pipeline]
    let backend: any GeneratorBackend
    let metrics: WorkerMetrics
    let group: any EventLoopGroup
    /// Of the connection: where claims are made and timers run.
    let eventLoop: any EventLoop
    let loopExecutor: LoopExecutor
    let logger: Logger
    /// Names this start of the worker in its record.
    let instance: String
    let state: Mutex<State>
    let learnedCache = LearnedCache()
    let reportPolicy: ReportPolicy
    /// Of a job that brings none of its own.
    let runLimits: RunLimits
    let heartbeatMs: Int
    /// Rung when a slot became free or the worker drains.
    let slotBell: Doorbell
    /// Rung when the worker drains, for a claim that waits for its next try.
    let interruptBell: Doorbell
    private let stopBell: Doorbell
    /// Rung when the record should be written anew.
    let recordBell: Doorbell
    /// Rung when the last free slot was taken: from now on nobody claims.
    let busyBell: Doorbell

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
            eventLoop: store.redis.eventLoop,
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
        eventLoop: (any EventLoop)? = nil,
        logger: Logger
    ) {
        self.configuration = configuration
        reportPolicy = ReportPolicy(maxPerSecond: configuration.updatesPerSecond)
        runLimits = RunLimits(
            runtimeMs: configuration.maxRuntime.wholeMilliseconds,
            stallMs: configuration.stallKill?.wholeMilliseconds,
            quotaBytes: configuration.jobQuotaBytes
        )
        heartbeatMs = store.settings.heartbeat.wholeMilliseconds
        self.store = store
        self.hints = hints
        self.pipelines = Dictionary(pipelines.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        self.backend = backend
        self.metrics = WorkerMetrics(registry)
        self.group = group
        let eventLoop = eventLoop ?? group.next()
        self.eventLoop = eventLoop
        loopExecutor = LoopExecutor(eventLoop)
        self.logger = logger
        slotBell = Doorbell(eventLoop)
        interruptBell = Doorbell(eventLoop)
        stopBell = Doorbell(eventLoop)
        recordBell = Doorbell(eventLoop)
        busyBell = Doorbell(eventLoop)
        let environment = configuration.environment
        instance = environment.makeNonce()
        state = Mutex(
            State(reaps: ReapSchedule(queues: configuration.queues, nowMs: environment.nowMs(), random: environment.random))
        )
    }

    var environment: WorkerEnvironment { configuration.environment }
    var isDraining: Bool { state.withLock { $0.stage >= .draining } }
    var isStopping: Bool { state.withLock { $0.stage == .stopping } }

    /// Serves until graceful shutdown, cancellation or the end of a drain.
    ///
    /// - Throws: `WorkerError` when the configuration, the work directory or the backend cannot be used.
    public func run() async throws {
        try configuration.validate()
        do throws(BackendError) {
            try backend.check()
        } catch {
            throw WorkerError(.backend, error.message)
        }
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
            // On the loop of the connection: a claim, an end and their replies change no thread. What may block runs elsewhere.
            await withTaskExecutorPreference(loopExecutor) {
                await serve(directory: directory.path, files: files)
            }
        } onGracefulShutdown: {
            self.enter(.stopping)
        }
        try? await client.shutdown()
        directory.removeIfEmpty()
    }

    /// Takes no more jobs, lets the running ones finish however long they take, and ends.
    public func drain() { enter(.draining) }

    /// No more claims; the rest follows. What a graceful shutdown calls with `.stopping`.
    func enter(_ stage: Stage) {
        let wait = state.withLock { state in
            state.stage = max(state.stage, stage)
            return state.wait
        }
        wait?.cancel()
        slotBell.ring()
        interruptBell.ring()
        recordBell.ring()
        if stage == .stopping { stopBell.ring() }
    }

    private func serve(directory: String, files: GatewayFiles?) async {
        logger.info("worker serves", metadata: ["worker.id": "\(configuration.name)"])
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.readAhead() }
            group.addTask { await self.keepRegistered() }
            group.addTask { await self.keepLookingAtGPUs() }
            group.addTask { await self.keepReaping() }
            group.addTask { await self.listenForHints() }
            group.addTask { await self.endGrace() }
            await claimAndRun(directory: directory, files: files)
            group.cancelAll()
        }
        await leave()
        logger.info("worker stopped", metadata: ["worker.id": "\(configuration.name)"])
    }

    /// The last words: its record should not look alive for longer than it is, and a wake-up that this worker took and could not
    /// use any more goes to another.
    private func leave() async {
        let (store, name, instance, queues) = (store, configuration.name, instance, configuration.queues)
        // A short task of its own: the worker's may be cancelled.
        await Task {
            do throws(StoreError) {
                try await store.removeWorker(name, instance: instance)
                for queue in queues { _ = try await store.reap(queue: queue) }
            } catch {
                // Without Redis its record ends by itself, and others reap.
            }
        }.value
    }

    /// Waits for the shutdown, then for the grace, and then stops what still runs.
    private func endGrace() async {
        while !isStopping {
            if Task.isCancelled { return }
            await stopBell.wait(atMost: .seconds(3600))
        }
        do {
            try await Task.sleep(for: configuration.shutdownGrace)
        } catch {
            return
        }
        for running in state.withLock({ Array($0.running.values) }) { running.stop.give(.shutdown) }
    }
}
