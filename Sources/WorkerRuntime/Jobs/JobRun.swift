import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink
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
    let loopExecutor: LoopExecutor
    /// No job of this pipeline ran here before.
    let isFirstOfItsPipeline: Bool
    let learnedCache: LearnedCache
    /// What to ask for together with a good end; nil: nothing.
    let nextRequest: @Sendable () -> ClaimRequest?
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

    struct Result {
        var end: JobEnd
        /// What that says about this worker.
        var sign: HealthSign
        /// The job that came along with the end.
        var next: Claim?
    }

    /// Runs the job and writes its end.
    func run() async -> Result {
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
        let directory = JobDirectory(path: self.directory)
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

        // A task of its own, because it alone is stopped by an order while heartbeats and reports go on around it, and because it may
        // block: then it does not run on the event loop.
        let executor = backend.mayBlock || backend.usesFiles ? nil : loopExecutor
        let work = Task(executorPreference: executor) { await self.work(in: directory, progress: progress) }
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
        let durationMs = environment.nowMs() - startMs
        // What is delivered lives elsewhere. First, because a job that comes along with the end shall not wait for a large directory.
        var isComplete = false
        if case .complete = action { isComplete = true }
        if isComplete, files != nil { await remove(directory) }
        let (end, next) = await write(action, progress: progress)
        // Without a gateway the results live here.
        if !isComplete || end != .complete { await remove(directory) }
        if end == .complete, shouldTeach(lesson, durationMs: durationMs) {
            if next == nil {
                await teach(lesson)
            } else {
                // A task of its own, because the next job starts now; when it is lost with the process, little is.
                Task { await teach(lesson) }
            }
        }
        return Result(end: end, sign: sign, next: next)
    }

    /// Not on the event loop: to remove much takes a while.
    private func remove(_ directory: JobDirectory) async {
        if backend.usesFiles { _ = await onOwnThread { directory.remove() } }
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
        let stop = stop
        let limit = eventLoop.scheduleTask(in: TimeAmount(.milliseconds(limits.runtimeMs))) { stop.give(.timeout) }
        defer { limit.cancel() }
        // Beside the others and never cancelled: a write that is cut off may have arrived, and would be repeated by whoever goes on.
        async let reporting = report(initial)
        let outcome = await withTaskGroup(of: WorkOutcome?.self) { group in
            group.addTask {
                await self.keepLease()
                return nil
            }
            if limits.quotaBytes != nil {
                group.addTask {
                    await self.watchQuota(of: directory)
                    return nil
                }
            }
            if limits.stallMs != nil {
                group.addTask {
                    await self.watchStall(progress)
                    return nil
                }
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
            if backend.usesFiles { try directory.make() }
            let inputs = try JobInput.list(paramsJSON: claim.paramsJSON)
            if let files, backend.usesFiles {
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
            guard backend.usesFiles else { return .done(resultJSON: compose([], result, progress)) }
            if DiskSpace.isFull(directory.output) {
                progress.receive(.log(stream: "headway", text: "the disk is full: results may be cut short"))
            }
            let outputs = try OutputFile.list(directory.output)
            if let files {
                for output in outputs { try await files.deliver(output, lease: lease) }
            }
            return .done(resultJSON: compose(outputs, result, progress))
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

    private func compose(_ outputs: [OutputFile], _ result: BackendResult, _ progress: JobProgress) -> String {
        let (json, isCut) = JobResult.compose(
            files: outputs,
            url: { files == nil ? nil : GatewayFiles.path(of: $0, job: lease.job) },
            ownJSON: result.resultJSON
        )
        if isCut {
            progress.receive(.log(stream: "headway", text: "the result is larger than \(StoreLimits.resultBytes) bytes and was cut"))
        }
        return json
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
}
