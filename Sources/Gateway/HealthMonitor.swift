import Logging
import NIOCore
import RedisLink
import Synchronization
import Telemetry

/// Whether this gateway hears Redis, looked at now and then so that a health check costs nothing.
final class HealthMonitor: Sendable {
    enum Verdict: Int, Sendable {
        case ready
        /// Redis as a whole is out of reach: another gateway would be no better, and sending everybody there would only cut them.
        case degraded
        /// Redis answers a fresh connection, and this gateway's own does not hear it.
        case linkDead
    }

    /// Canaries that must be lost in a row: one may be lost to a slow moment.
    private static let lossesThatCount = 2

    private let hub: Hub
    private let redis: RedisConfiguration
    private let group: any EventLoopGroup
    private let limits: GatewayLimits
    private let logger: Logger
    private let current = Atomic<Int>(Verdict.ready.rawValue)
    private let canary: Gauge

    init(
        hub: Hub,
        redis: RedisConfiguration,
        group: any EventLoopGroup,
        limits: GatewayLimits,
        registry: MetricsRegistry,
        logger: Logger
    ) {
        self.hub = hub
        var redis = redis
        redis.poolSize = 1
        self.redis = redis
        self.group = group
        self.limits = limits
        self.logger = logger
        self.canary = registry.gauge(.gatewayLink)
    }

    var verdict: Verdict { Verdict(rawValue: current.load(ordering: .relaxed)) ?? .degraded }

    /// Looks again and again until cancelled.
    func run() async {
        var losses = 0
        while !Task.isCancelled {
            let isAlive = await hub.probe()
            canary.set(isAlive ? 1 : 0)
            losses = isAlive ? 0 : losses + 1
            if isAlive {
                decide(.ready)
            } else if losses >= Self.lossesThatCount {
                decide(await answersFreshConnection() ? .linkDead : .degraded)
            }
            do { try await Task.sleep(for: limits.healthInterval) } catch { return }
        }
    }

    private func decide(_ verdict: Verdict) {
        let before = current.exchange(verdict.rawValue, ordering: .relaxed)
        guard before != verdict.rawValue else { return }
        switch verdict {
        case .ready: logger.notice("the canary through redis comes back")
        case .degraded: logger.warning("redis does not answer")
        case .linkDead: logger.error("redis answers others, but not this gateway")
        }
    }

    private func answersFreshConnection() async -> Bool {
        let client = RedisClient(configuration: redis, eventLoopGroup: group, logger: logger)
        return await withTaskGroup(of: Bool?.self) { tasks in
            tasks.addTask {
                try? await client.run()
                return nil
            }
            tasks.addTask { [limits] in (try? await client.send(["PING"], timeout: limits.healthTimeout)) != nil }
            defer { tasks.cancelAll() }
            for await answer in tasks {
                if let answer { return answer }
            }
            return false
        }
    }
}
