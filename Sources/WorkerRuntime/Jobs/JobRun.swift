import JobStore
import Logging
import NIOCore
import ProgressCore
import Telemetry

/// One claimed job, from the claim to the last thing written about it.
struct JobRun: Sendable {
    let claim: Claim
    let store: any WorkerStore
    let backend: any GeneratorBackend
    let files: GatewayFiles?
    let configuration: WorkerConfiguration
    let pipeline: Pipeline
    /// Of this run alone.
    let directory: String
    let metrics: WorkerMetrics
    let logger: Logger
    let stop: StopOrder
    /// Rung for a heartbeat at once: somebody says that this job was cancelled.
    let heartbeatBell: Doorbell
    /// For timers.
    let eventLoop: any EventLoop
    /// No job of this pipeline ran here before.
    let isFirstOfItsPipeline: Bool
    /// True once the worker shuts down: ends are then repeated for a short time only.
    let isShuttingDown: @Sendable () -> Bool

    var environment: WorkerEnvironment { configuration.environment }
    var lease: Lease { claim.lease }

    var limits: RunLimits {
        RunLimits(
            runtimeMs: claim.maxRuntimeMs ?? configuration.maxRuntime.wholeMilliseconds,
            stallMs: configuration.stallKill?.wholeMilliseconds,
            quotaBytes: configuration.jobQuotaBytes
        )
    }

    /// Runs the job and writes its end. Returns how it ended, and what that says about this worker.
    func run() async -> (end: JobEnd, sign: HealthSign) {
        let startMs = environment.nowMs()
        let policy = ReportPolicy(maxPerSecond: configuration.updatesPerSecond)
        let bell = Doorbell(eventLoop)
        let progress = JobProgress(
            pipeline: pipeline,
            plan: claim.planJSON.flatMap(GeneratorLine.plan(json:)) ?? [],
            statistics: await learned(),
            hints: hints,
            policy: policy,
            bell: bell,
            nowMs: environment.nowMs
        )
        let directory: JobDirectory
        do throws(BackendError) {
            directory = try JobDirectory(path: self.directory)
        } catch {
            let action = EndAction.decide(.failed(error), stop: stop.reason, limits: limits)
            return (await write(action, progress: progress), sign(of: .failed(error), startedMs: startMs))
        }
        var reporter = Reporter(
            store: store,
            lease: lease,
            progress: progress,
            bell: bell,
            stop: stop,
            policy: policy,
            metrics: metrics,
            environment: environment,
            outputDirectory: directory.output,
            logger: logger
        )

        // A task of its own, because it alone is stopped by an order while heartbeats and reports go on around it.
        let work = Task { await self.work(in: directory, progress: progress) }
        stop.whenGiven { work.cancel() }
        let outcome = await withTaskCancellationHandler {
            await supervise(work, in: directory, progress: progress, reporter: &reporter)
        } onCancel: {
            work.cancel()
        }

        let sign = sign(of: outcome, startedMs: startMs)
        let action = EndAction.decide(outcome, stop: stop.reason, limits: limits)
        if action != .nothing { await reporter.flush { isShuttingDown() ? store.settings.lease : WorkerLimits.endRetry } }
        let lesson = progress.finish()
        let end = await write(action, progress: progress)
        if end == .complete { await teach(lesson) }
        // Without a gateway the results live here.
        if files != nil || end != .complete { directory.remove() }
        return (end, sign)
    }

    private func sign(of outcome: WorkOutcome, startedMs: Int) -> HealthSign {
        switch outcome {
        case .done: return .well
        case .stopped: return .unclear
        case .failed(let error) where error.didNotStart: return .couldNotStart(message: error.message)
        case .failed(let error):
            if stop.reason != nil { return .unclear }
            // What the generator itself calls hopeless is a judgement about the job: it ran.
            let isJudged = !error.isRecoverable && error.code != BackendError.noGatewayCode
            let isAtOnce = environment.nowMs() - startedMs < WorkerLimits.instantFailureMs
            return isAtOnce && !isJudged ? .failedAtOnce(code: error.code) : .well
        }
    }

    private func supervise(
        _ work: Task<WorkOutcome, Never>,
        in directory: JobDirectory,
        progress: JobProgress,
        reporter: inout Reporter
    ) async -> WorkOutcome {
        let initial = reporter
        // Beside the others and never cancelled: a write that is cut off may have arrived, and would be repeated by whoever goes on.
        async let reporting = report(initial)
        let outcome = await withTaskGroup(of: WorkOutcome?.self) { group in
            group.addTask {
                await self.keepLease()
                return nil
            }
            group.addTask {
                await self.watchLimit()
                return nil
            }
            group.addTask {
                await self.watchQuota(of: directory)
                return nil
            }
            group.addTask {
                await self.watchStall(progress)
                return nil
            }
            group.addTask { await work.value }
            var outcome = WorkOutcome.stopped
            for await case let ended? in group {
                outcome = ended
                group.cancelAll()
            }
            return outcome
        }
        progress.close()
        reporter = await reporting
        return outcome
    }

    private func report(_ initial: Reporter) async -> Reporter {
        var reporter = initial
        await reporter.run()
        return reporter
    }

    // MARK: The work

    private func work(in directory: JobDirectory, progress: JobProgress) async -> WorkOutcome {
        do {
            let inputs = try JobInput.list(paramsJSON: claim.paramsJSON)
            if let files {
                for input in inputs { try await files.fetch(input, into: directory.input) }
            } else if !inputs.isEmpty {
                throw BackendError(
                    code: BackendError.noGatewayCode,
                    message: "the job has inputs, and this worker knows no gateway to fetch them from (--gateway URL)",
                    isRecoverable: false
                )
            }
            let job = BackendJob(
                id: lease.job,
                attempt: claim.attempt,
                pipeline: claim.pipeline,
                definition: pipeline,
                paramsJSON: claim.paramsJSON,
                inputDirectory: directory.input,
                outputDirectory: directory.output,
                traceparent: claim.traceparent
            )
            progress.noteNews()
            let result = try await backend.run(job: job, events: BackendEvents { progress.receive($0) })
            if let quota = limits.quotaBytes, await isOverQuota(directory, quota: quota) { throw BackendError.quotaExceeded(quota) }
            if DiskSpace.isFull(directory.output) {
                progress.receive(.log(stream: "headway", text: "the disk is full: results may be cut short"))
            }
            let outputs = try OutputFile.list(directory.output)
            if let files {
                for output in outputs { try await files.deliver(output, lease: lease) }
            }
            let (json, isCut) = JobResult.compose(
                files: outputs,
                url: { files == nil ? nil : GatewayFiles.path(of: $0, job: lease.job) },
                ownJSON: result.resultJSON
            )
            if isCut {
                progress.receive(.log(stream: "headway", text: "the result is larger than \(StoreLimits.resultBytes) bytes and was cut"))
            }
            return .done(resultJSON: json)
        } catch let error as BackendError {
            let isForeign = error.code == "generator_failed" || error.code == "generator_killed"
            if isForeign, DiskSpace.isMeant(by: error.message) || DiskSpace.isFull(directory.output) {
                return .failed(.diskFull(error.message))
            }
            return .failed(error)
        } catch {
            if Task.isCancelled || error is CancellationError { return .stopped }
            return .failed(
                BackendError(
                    code: "generator_failed",
                    message: MessageText.sanitised("unexpected \(type(of: error)): \(error)"),
                    isRecoverable: true
                )
            )
        }
    }

    // MARK: Around the work

    /// Heartbeats, whatever the backend does, until cancelled or lost.
    private func keepLease() async {
        var isAway = false
        while !Task.isCancelled {
            await heartbeatBell.wait(atMost: store.settings.heartbeat)
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

    private func watchLimit() async {
        do {
            try await Task.sleep(for: .milliseconds(limits.runtimeMs))
            stop.give(.timeout)
        } catch {
            // The job ended before.
        }
    }

    // MARK: The end

    private func write(_ action: EndAction, progress: JobProgress) async -> JobEnd {
        let stages = progress.stageDurations()
        switch action {
        case .nothing: return .lost
        case .complete(let result):
            do throws(StoreError) {
                let status = try await repeated { store throws(StoreError) in
                    try await store.finish(lease, as: .complete, resultJSON: result, stagesMs: stages)
                }
                return status == .done ? .complete : .lost
            } catch {
                guard error.code == .invalid else { return .lost }
                return await write(.fail(.outputRejected(error.message, isRecoverable: false)), progress: progress)
            }
        case .acknowledgeCancel:
            return await ended(.cancelled) { store throws(StoreError) in
                try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: stages) == .done
            }
        case .fail(let error):
            logger.notice("job failed", metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code)"])
            return await ended(.failed) { store throws(StoreError) in
                try await store.fail(lease, error: error.jobError, stagesMs: stages) != .lost
            }
        case .release:
            return await ended(.released) { store throws(StoreError) in try await store.release(lease) != .lost }
        }
    }

    private func ended(_ end: JobEnd, _ verb: (any WorkerStore) async throws(StoreError) -> Bool) async -> JobEnd {
        do throws(StoreError) {
            return try await repeated(verb) ? end : .lost
        } catch {
            logger.error("the end of a job was not written", metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"])
            return .lost
        }
    }

    /// Repeats an end until Redis takes it, or until `reap` has long decided about the job. All of them are harmless to repeat.
    private func repeated<R>(_ verb: (any WorkerStore) async throws(StoreError) -> R) async throws(StoreError) -> R {
        var backoff = Backoff()
        let startMs = environment.nowMs()
        while true {
            do throws(StoreError) {
                return try await verb(store)
            } catch {
                metrics.storeErrors.increment()
                let limit = isShuttingDown() ? store.settings.lease : WorkerLimits.endRetry
                let isOver = environment.nowMs() - startMs >= limit.wholeMilliseconds
                if error.code == .invalid || Task.isCancelled || isOver { throw error }
                try? await Task.sleep(for: backoff.next(random: environment.random()))
            }
        }
    }
}
