import Glibc
import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink
import Synchronization
import Telemetry

/// What a worker does beside its jobs: it says that it lives, looks after the queues and listens.
extension Worker {
    // MARK: The record

    /// Writes the record when something changed, joined over a second, and otherwise every `settings.registration`.
    func keepRegistered() async {
        var isFirst = true
        while !Task.isCancelled {
            var pause: Duration
            do throws(StoreError) {
                let orders = try await store.registerWorker(record())
                if orders.shouldDrain, !isDraining {
                    logger.notice("told to drain", metadata: ["worker.id": "\(configuration.name)"])
                    drain()
                }
                if orders.didReplace, !isFirst {
                    logger.error("another worker has this name: give each its own --name", metadata: ["worker.id": "\(configuration.name)"])
                }
                isFirst = false
                let interval = store.settings.registration
                pause = interval * (0.95 + 0.05 * environment.random())
            } catch {
                if Task.isCancelled { return }
                logger.debug("worker not registered", metadata: ["error.code": "\(error.code.rawValue)"])
                pause = min(store.settings.registration, WorkerLimits.registrationRetry)
            }
            let gap = min(WorkerLimits.registrationGap, pause)
            try? await Task.sleep(for: gap)
            await recordBell.wait(atMost: pause - gap)
        }
    }

    private func record() -> WorkerRecord {
        let state = state.withLock { $0 }
        var record = WorkerRecord(
            id: configuration.name,
            host: configuration.host,
            pid: Int(getpid()),
            version: configuration.version,
            queues: configuration.queues,
            pipeline: configuration.pipeline,
            concurrency: configuration.concurrency,
            jobs: Set(state.running.values.map(\.lease.job.text)).sorted(),
            isDraining: state.stage >= .draining
        )
        record.instance = instance
        record.labels = configuration.labels
        record.backend = configuration.backend
        record.gpus = state.gpus
        record.cpus = max(0, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        record.memoryMB = max(0, sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))) >> 20
        record.finished = state.finished
        record.failed = state.failed
        if let pause = state.crashLoop.pause {
            record.slowedReason = MessageText.sanitised(pause.reason, limit: WorkerLimits.reasonBytes)
            record.slowedForMs = max(0, pause.untilMs - environment.nowMs())
        }
        return record
    }

    /// Reads what the first job is likely to need, so that it does not wait for it.
    func readAhead() async {
        do throws(StoreError) {
            let statistics = try await store.statistics(pipeline: configuration.pipeline)
            learnedCache.note(statistics, of: configuration.pipeline, nowMs: environment.nowMs())
        } catch {
            // The job will try again.
        }
    }

    // MARK: The GPUs

    /// Looks at them at the start and then rarely.
    func keepLookingAtGPUs() async {
        guard let tool = configuration.gpuTool else { return }
        // What is Headway's own may be secret.
        let environment = GeneratorCommand.processEnvironment().filter { !$0.key.hasPrefix("HEADWAY_") }.map { "\($0.key)=\($0.value)" }
        while !Task.isCancelled {
            let isFree = state.withLock { state in
                defer { state.isLookingAtGPUs = true }
                return !state.isLookingAtGPUs
            }
            if isFree {
                ShortCommand.start(
                    tool,
                    GPUList.arguments,
                    environment: environment,
                    limit: WorkerLimits.gpuQueryTime,
                    bytes: WorkerLimits.gpuQueryBytes
                ) { [self] outcome in note(outcome) }
            }
            try? await Task.sleep(for: WorkerLimits.gpuRefresh)
        }
    }

    private func note(_ outcome: ShortCommand.Outcome) {
        guard case .printed(let text) = outcome else {
            state.withLock { $0.isLookingAtGPUs = false }
            return logger.debug("gpus not listed", metadata: ["worker.id": "\(configuration.name)"])
        }
        let gpus = GPUList.parse(text, visible: configuration.visibleGPUs)
        let isNews = state.withLock { state in
            defer { state.gpus = gpus }
            state.isLookingAtGPUs = false
            return state.gpus.map(\.name) != gpus.map(\.name)
        }
        // A change of the memory in use can wait for the next record.
        if isNews { recordBell.ring() }
    }

    // MARK: The queues

    /// Any live process does this; a worker is one.
    func keepReaping() async {
        while !Task.isCancelled {
            let nowMs = environment.nowMs()
            let (due, pause) = state.withLock { state in
                let isBusy = state.running.count >= configuration.concurrency
                let due = state.reaps.due(nowMs: nowMs, isBusy: isBusy)
                return (due, state.reaps.wait(nowMs: nowMs, isBusy: isBusy))
            }
            for queue in due where !Task.isCancelled { await reap(queue) }
            if due.isEmpty { await busyBell.wait(atMost: pause) }
        }
    }

    func reap(_ queue: String) async {
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

    // MARK: Hints

    /// Cancels reach a worker with its next heartbeat in any case; the subscription makes that heartbeat come at once.
    func listenForHints() async {
        guard var hints else { return }
        hints.configuration.limits.idleBeforeProbe = TimeAmount(WorkerLimits.hintProbe)
        // Held by the subscriber, which ends here. A weak reference would make each of the worker's many others dearer.
        let listener = HintListener { [self] hint in
            if hint == JobStore.drainHint { return drain() }
            let runs = state.withLock { $0.running.values.filter { $0.lease.job.text == hint } }
            for run in runs { run.beatSoon() }
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

/// Takes the text out of a hint.
private final class HintListener: RedisSubscriberDelegate {
    private let receive: @Sendable (String) -> Void

    init(_ receive: @escaping @Sendable (String) -> Void) { self.receive = receive }

    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) { receive(String(buffer: payload)) }
    func redisSubscriptionsLost() {}
    func redisSubscriptionsRestored() {}
    func redisReadComplete() {}
}
