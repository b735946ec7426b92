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
    let eventLoop: any EventLoop
    /// Rung for a heartbeat at once: somebody says that this job was cancelled.
    let heartbeatBell: Doorbell
    /// Called when the work is done well and only its end remains to be written.
    let onEnding: @Sendable () -> Void
    /// True once the worker shuts down: ends are then repeated for a short time only.
    let isShuttingDown: @Sendable () -> Bool

    private var environment: WorkerEnvironment { configuration.environment }
    private var lease: Lease { claim.lease }

    private var limitMs: Int { claim.maxRuntimeMs ?? configuration.maxRuntime.wholeMilliseconds }

    /// Runs the job and writes its end. Returns how it ended and, when it failed, after how long.
    func run() async -> (end: JobEnd, failedAfterMs: Int?) {
        let startMs = environment.nowMs()
        let policy = ReportPolicy(maxPerSecond: configuration.updatesPerSecond)
        let bell = Doorbell(eventLoop)
        let progress = JobProgress(
            pipeline: pipeline,
            plan: claim.planJSON.flatMap(GeneratorLine.plan(json:)) ?? [],
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

        // A task of its own, because it alone is stopped by an order while heartbeats and reports go on around it, and because it
        // may block: it does not run on the event loop.
        let work = Task { await self.work(in: directory, progress: progress) }
        stop.whenGiven { work.cancel() }
        let outcome = await withTaskCancellationHandler {
            await supervise(work, progress: progress, reporter: &reporter)
        } onCancel: {
            work.cancel()
        }

        let action = EndAction.decide(outcome, stop: stop.reason, limitMs: limitMs)
        if case .complete = action { onEnding() }
        if action != .nothing { await reporter.flush() }
        let end = await write(action, progress: progress)
        // Without a gateway the results live here. A task of its own: to remove much takes time that the event loop has not.
        if backend.usesFiles, files != nil || end != .complete { await Task { directory.remove() }.value }
        return (end, end == .failed ? environment.nowMs() - startMs : nil)
    }

    private func supervise(_ work: Task<WorkOutcome, Never>, progress: JobProgress, reporter: inout Reporter) async -> WorkOutcome {
        let initial = reporter
        let (outcome, final) = await withTaskGroup(of: (WorkOutcome?, Reporter?).self) { group in
            group.addTask {
                await self.keepLease(progress)
                return (nil, nil)
            }
            group.addTask {
                var reporter = initial
                await reporter.run()
                return (nil, reporter)
            }
            group.addTask { (await work.value, nil) }
            var outcome = WorkOutcome.stopped
            var final: Reporter?
            for await (ended, reporter) in group {
                if let reporter { final = reporter }
                if let ended {
                    outcome = ended
                    progress.end()
                    heartbeatBell.ring()
                }
            }
            return (outcome, final)
        }
        if let final { reporter = final }
        return outcome
    }

    // MARK: The work

    private func work(in directory: JobDirectory, progress: JobProgress) async -> WorkOutcome {
        do {
            if backend.usesFiles { try directory.make() }
            let inputs = backend.usesFiles ? try JobInput.list(paramsJSON: claim.paramsJSON) : []
            if let files {
                for input in inputs { try await files.fetch(input, into: directory.input) }
            } else if !inputs.isEmpty {
                throw BackendError(
                    code: "no_gateway",
                    message: "the job has inputs, and this worker knows no gateway to fetch them from (--gateway URL)",
                    isRecoverable: false
                )
            }
            let job = BackendJob(
                id: lease.job,
                attempt: claim.attempt,
                pipeline: claim.pipeline,
                paramsJSON: claim.paramsJSON,
                inputDirectory: directory.input,
                outputDirectory: directory.output,
                traceparent: claim.traceparent
            )
            let result = try await backend.run(job: job, events: BackendEvents { progress.receive($0) })
            let outputs = backend.usesFiles ? try OutputFile.list(directory.output) : []
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

    /// Heartbeats, whatever the backend does, until cancelled or lost; and the order to stop when the time is over.
    private func keepLease(_ progress: JobProgress) async {
        var isAway = false
        let endMs = environment.nowMs() + limitMs
        while !Task.isCancelled {
            let left = endMs - environment.nowMs()
            if left <= 0 { stop.give(.timeout) }
            await heartbeatBell.wait(atMost: left > 0 ? min(store.settings.heartbeat, .milliseconds(left)) : store.settings.heartbeat)
            if Task.isCancelled || progress.isOver { return }
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
