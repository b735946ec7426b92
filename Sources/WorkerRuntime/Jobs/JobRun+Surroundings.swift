import JobStore
import Logging
import NIOCore
import RedisLink
import Synchronization
import Telemetry

/// What goes on around the work on a job, beside it and whatever it does: heartbeats, reports and limits.
extension JobRun {
    struct Surroundings {
        enum Stage {
            /// The job has not begun its work, or only just.
            case waiting
            case running(watch: Task<Void, Never>, reporting: Task<Reporter, Never>, limit: Scheduled<Void>)
            case ended
        }

        var stage = Stage.waiting
        /// They were wanted before there was any work.
        var isWanted = false
        var isCancelled = false
        var work: Task<WorkOutcome, Never>?
        var progress: JobProgress?
        /// Rung for a heartbeat at once.
        var heartbeatBell: Doorbell?
        /// Rung for a report at once.
        var reportBell: Doorbell?
    }

    /// Before the work, which may have something to report before it returns for the first time.
    func prepareSurroundings(for progress: JobProgress) {
        // None of these can be late by the moment that a short job is given.
        let urgent = min(limits.runtimeMs, limits.stallMs ?? .max, worker.heartbeatMs)
        surroundings.withLock { around in
            around.progress = progress
            if around.isWanted || urgent <= WorkerLimits.firstReportMs { begin(&around) }
        }
    }

    /// Notes the work, which a cancellation of the worker is to reach.
    func surround(_ work: Task<WorkOutcome, Never>) {
        let isCancelled = surroundings.withLock { around in
            around.work = work
            return around.isCancelled
        }
        if isCancelled { work.cancel() }
    }

    /// Begins what goes on around the work, if it has not begun.
    func beginSurroundings() { surroundings.withLock { begin(&$0) } }

    /// Somebody says that this job was cancelled: a heartbeat tells.
    func beatSoon() {
        let bell = surroundings.withLock { around in
            let bell = around.heartbeatBell ?? Doorbell(worker.eventLoop)
            around.heartbeatBell = bell
            begin(&around)
            return bell
        }
        bell.ring()
    }

    /// Something waits to be written.
    func reportSoon() {
        let bell = surroundings.withLock { around in
            begin(&around)
            return around.reportBell
        }
        bell?.ring()
    }

    /// The worker was cancelled: everything of this job stops where it is.
    func cancel() {
        let (work, stage) = surroundings.withLock { around in
            around.isCancelled = true
            return (around.work, around.stage)
        }
        work?.cancel()
        guard case .running(let watch, let reporting, _) = stage else { return }
        watch.cancel()
        reporting.cancel()
    }

    /// The work has ended: returns the reporter, if it ever began, when it and all else have come to their ends.
    func endSurroundings(of progress: JobProgress) async -> Reporter? {
        let stage = surroundings.withLock { around in
            defer { (around.stage, around.work, around.progress) = (.ended, nil, nil) }
            return around.stage
        }
        // Rings the reporter's bell, too.
        progress.close()
        guard case .running(let watch, let reporting, let limit) = stage else { return nil }
        limit.cancel()
        watch.cancel()
        await watch.value
        // Never cancelled: a write that is cut off may have arrived, and would be repeated by whoever goes on.
        return await reporting.value
    }

    private func begin(_ around: inout Surroundings) {
        guard case .waiting = around.stage else { return }
        guard let progress = around.progress else {
            around.isWanted = true
            return
        }
        let heartbeatBell = around.heartbeatBell ?? Doorbell(worker.eventLoop)
        let reportBell = Doorbell(worker.eventLoop)
        (around.heartbeatBell, around.reportBell) = (heartbeatBell, reportBell)
        let stop = stop
        let runtimeMs = min(limits.runtimeMs, WorkerLimits.longestTimerMs) - (environment.nowMs() - startMs)
        let limit = worker.eventLoop.scheduleTask(in: .milliseconds(Int64(max(0, runtimeMs)))) { stop.give(.timeout) }
        // Tasks of their own, because the work is there first, and because only one of them may be cut off.
        let watch = Task(executorPreference: worker.loopExecutor) { await self.watch(progress, heartbeatBell) }
        let reporter = reporter(of: progress)
        let reporting = Task(executorPreference: worker.loopExecutor) {
            var reporter = reporter
            await reporter.run(reportBell)
            return reporter
        }
        around.stage = .running(watch: watch, reporting: reporting, limit: limit)
        guard around.isCancelled else { return }
        watch.cancel()
        reporting.cancel()
    }

    func reporter(of progress: JobProgress) -> Reporter {
        Reporter(
            store: store,
            lease: lease,
            progress: progress,
            stop: stop,
            policy: worker.reportPolicy,
            metrics: metrics,
            environment: environment,
            outputDirectory: backend.usesFiles ? directory.output : "",
            logger: logger
        )
    }

    private func watch(_ progress: JobProgress, _ heartbeatBell: Doorbell) async {
        await withTaskGroup(of: Void.self) { group in
            if limits.quotaBytes != nil { group.addTask { await self.watchQuota() } }
            if limits.stallMs != nil { group.addTask { await self.watchStall(progress) } }
            await keepLease(heartbeatBell)
        }
    }

    /// Heartbeats, whatever the backend does, until cancelled or lost.
    private func keepLease(_ bell: Doorbell) async {
        var isAway = false
        var pause = store.settings.heartbeat - .milliseconds(environment.nowMs() - startMs)
        while !Task.isCancelled {
            await bell.wait(atMost: max(pause, .zero))
            pause = store.settings.heartbeat
            if Task.isCancelled { return }
            do throws(StoreError) {
                let status = try await store.heartbeat(lease)
                if isAway { logger.info("redis is back", metadata: ["job.id": "\(lease.job)"]) }
                isAway = false
                switch status {
                case .held: break
                case .cancelRequested: stop.give(.cancelled)
                case .lost:
                    stop.give(.leaseLost)
                    return
                }
            } catch {
                if Task.isCancelled { return }
                metrics.storeErrors.increment()
                // The generator goes on: on return the fence decides.
                if !isAway {
                    logger.warning(
                        "redis does not answer, the job goes on",
                        metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"]
                    )
                }
                isAway = true
            }
        }
    }
}
