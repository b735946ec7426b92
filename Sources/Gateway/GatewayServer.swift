public import JobStore
public import Logging
public import NIOCore
import NIOHTTP1
import NIOPosix
public import RedisLink
public import ServiceLifecycle
import Synchronization
public import Telemetry

/// One gateway: binds, serves, and leaves in good order.
///
/// Stateless: everything it knows is in Redis or in the blob store, so any number of them stand side by side.
public final class GatewayServer: Service {
    private let configuration: GatewayConfiguration
    private let store: JobStore
    private let group: any EventLoopGroup
    private let logger: Logger
    private let hub: Hub
    private let blobs: any BlobStore
    private let health: HealthMonitor
    private let auditor: SlowAudit
    private let monitor: QueueMonitor
    private let http: HTTPService
    private let environment: GatewayEnvironment
    private let listening: EventLoopPromise<SocketAddress>
    private let isListeningSettled = Atomic<Bool>(false)
    private let draining: Gauge
    private let swept: Counter

    public init(
        configuration: GatewayConfiguration,
        store: JobStore,
        redis: RedisConfiguration,
        registry: MetricsRegistry,
        group: any EventLoopGroup,
        logger: Logger
    ) {
        self.configuration = configuration
        self.store = store
        self.group = group
        self.logger = logger
        let environment = GatewayEnvironment.system
        let limits = configuration.limits
        self.environment = environment
        hub = Hub(
            store: store,
            redis: redis,
            group: group,
            pipelines: configuration.pipelines,
            registry: registry,
            logger: logger
        )
        blobs = DirectoryBlobStore(root: configuration.dataDirectory, limits: limits, environment: environment)
        health = HealthMonitor(hub: hub, redis: redis, group: group, limits: limits, registry: registry, logger: logger)
        auditor = SlowAudit(store: store, limits: limits, random: environment.random, registry: registry, logger: logger)
        monitor = QueueMonitor(store: store, limits: limits, registry: registry, logger: logger)
        let context = RouteContext(
            store: store,
            hub: hub,
            blobs: blobs,
            limits: limits,
            pipelines: configuration.pipelines,
            registry: registry,
            environment: environment,
            queues: QueueNames(store: store, limits: limits, allowsAny: configuration.allowAnyQueue),
            health: health,
            logger: logger
        )
        let hub = hub
        let routes =
            SubmitRoutes(context: context).routes + JobRoutes(context: context).routes + ProgressRoutes(context: context).routes
            + StreamRoutes(context: context).routes + BlobRoutes(context: context).routes
            + SystemRoutes(context: context, isDraining: { hub.isDraining }).routes + WebFiles(registry: registry).routes
        http = HTTPService(
            router: Router(routes),
            limits: limits,
            hostPolicy: HostPolicy(
                isLoopback: HostPolicy.isLoopbackName(configuration.host.lowercased()),
                allowedHosts: configuration.allowedHosts,
                allowedOrigins: configuration.allowedOrigins
            ),
            environment: environment,
            registry: registry,
            logger: logger
        )
        listening = group.next().makePromise(of: SocketAddress.self)
        draining = registry.gauge(.gatewayDraining)
        swept = registry.counter(.blobsSwept)
    }

    deinit {
        if !isListeningSettled.load(ordering: .relaxed) {
            listening.fail(GatewayError(.cannotListen, "the gateway was never run"))
        }
    }

    /// The bound address, once there is one; throws what kept the gateway from listening.
    public func waitUntilListening() async throws -> SocketAddress { try await listening.futureResult.get() }

    /// Serves until graceful shutdown or cancellation; then every watcher is given its own moment within the drain window to come
    /// back elsewhere, and the connections are closed.
    public func run() async throws {
        do {
            try await serve()
        } catch {
            settleListening(.failure(error))
            throw error
        }
    }

    private func settleListening(_ result: Result<SocketAddress, any Error>) {
        if !isListeningSettled.exchange(true, ordering: .relaxed) { listening.completeWith(result) }
    }

    private func serve() async throws {
        guard configuration.isInsecure || HostPolicy.isLoopbackName(configuration.host.lowercased()) else {
            throw GatewayError(
                .insecureListen,
                "\(configuration.host) can be reached from other machines and nothing asks who comes: listen on 127.0.0.1 behind a proxy, "
                    + "or say --insecure"
            )
        }
        try await blobs.prepare()
        let channel = try await bind()
        if let address = channel.localAddress { settleListening(.success(address)) }
        logger.info("gateway listens", metadata: [LogKey.address: "\(channel.localAddress?.description ?? "")"])
        await withTaskGroup(of: Void.self) { tasks in
            tasks.addTask { await self.runHub() }
            tasks.addTask { await self.health.run() }
            tasks.addTask { await self.sweep() }
            tasks.addTask { await self.reap() }
            tasks.addTask { await self.auditor.run() }
            tasks.addTask { await self.monitor.run() }
            // A Service's way to learn of SIGTERM without ending the tasks above: they go on while watchers are sent away.
            try? await gracefulShutdown()
            await self.drain(channel)
            tasks.cancelAll()
        }
    }

    private func drain(_ channel: any Channel) async {
        draining.set(1)
        logger.notice("gateway drains")
        http.startDraining()
        hub.drain(over: configuration.drainWindow)
        try? await channel.close().get()
        http.connections.quiesce()
        // Watchers leave within the window, answers in progress are finished; what is left then is cut.
        let deadline = ContinuousClock.now + configuration.drainWindow + configuration.limits.drainGrace
        while http.connections.count > 0, ContinuousClock.now < deadline {
            do { try await Task.sleep(for: .milliseconds(20)) } catch { break }
        }
        http.connections.closeAll()
    }

    private func bind() async throws -> any Channel {
        let limits = configuration.limits
        let http = http
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Int32(limits.backlog))
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.maxMessagesPerRead, value: 64)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 512, initial: 512, maximum: limits.readBytes)
            )
            .childChannelOption(.maxMessagesPerRead, value: 2)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try http.configure(channel) }
            }
        do {
            return try await bootstrap.bind(host: configuration.host, port: configuration.port).get()
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            throw GatewayError(
                .cannotListen,
                "port \(configuration.port) of \(configuration.host) is taken: stop who holds it, or choose another with --listen"
            )
        } catch {
            throw GatewayError(.cannotListen, "cannot listen on \(configuration.host):\(configuration.port): \(error)")
        }
    }

    // MARK: In the background

    /// The link to Redis mends itself; what ends it for good is worth a line, and the canary tells the load balancer.
    private func runHub() async {
        do {
            try await hub.run()
        } catch is CancellationError {
        } catch {
            logger.error("the subscription to redis has ended", metadata: [LogKey.errorMessage: "\(error)"])
        }
    }

    private func sweep() async {
        while !Task.isCancelled {
            swept.increment(by: await blobs.sweep(nowMs: environment.nowMs()))
            do { try await Task.sleep(for: configuration.limits.sweepInterval) } catch { return }
        }
    }

    /// Ends and hands on what no worker looks after. Every gateway does it; the script itself keeps them from doing it twice.
    private func reap() async {
        while !Task.isCancelled {
            // Also what no worker takes: producers that were lost, groups whose children never came.
            for queue in ((try? await store.queueNames()) ?? []).union([Keys.heldQueue]) where !Task.isCancelled {
                do {
                    _ = try await store.reap(queue: queue)
                } catch {
                    logger.debug("reap failed", metadata: [LogKey.queueName: "\(queue)", LogKey.errorMessage: "\(error)"])
                }
            }
            do { try await Task.sleep(for: .seconds(1)) } catch { return }
        }
    }
}
