import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink
import Synchronization
import Telemetry

/// One claimed job, from the claim to the last thing written about it.
///
/// Heartbeats, reports and limits surround the work, but nothing of them is needed at once, and a job that ends at once needs none
/// of them: they begin when it has run for a moment (`Worker.watchStarts`), with the first change of phase or stage, or with a hint.
final class JobRun: Sendable {
    let worker: Worker
    let claim: Claim
    let pipeline: Pipeline
    /// Of the worker, and which of its runs this is: together the name of this run's own.
    private let parentDirectory: String
    private let number: Int
    let files: GatewayFiles?
    /// No job of this pipeline ran here before.
    let isFirstOfItsPipeline: Bool
    /// When it was claimed, by the worker's clock.
    let startMs: Int
    let stop = StopOrder()
    let surroundings = Mutex(Surroundings())

    init(
        _ claim: Claim,
        worker: Worker,
        pipeline: Pipeline,
        parentDirectory: String,
        number: Int,
        files: GatewayFiles?,
        isFirstOfItsPipeline: Bool,
        startMs: Int
    ) {
        self.claim = claim
        self.worker = worker
        self.pipeline = pipeline
        self.parentDirectory = parentDirectory
        self.number = number
        self.files = files
        self.isFirstOfItsPipeline = isFirstOfItsPipeline
        self.startMs = startMs
    }

    var store: any WorkerStore { worker.store }
    var backend: any GeneratorBackend { worker.backend }
    var configuration: WorkerConfiguration { worker.configuration }
    var environment: WorkerEnvironment { worker.configuration.environment }
    var metrics: WorkerMetrics { worker.metrics }
    var logger: Logger { worker.logger }
    var learnedCache: LearnedCache { worker.learnedCache }
    var lease: Lease { claim.lease }

    /// Of this run alone; made only for a backend that uses files.
    var directory: JobDirectory { JobDirectory(path: "\(parentDirectory)/job-\(claim.lease.job)-\(number)") }

    var limits: RunLimits {
        var limits = worker.runLimits
        if let own = claim.maxRuntimeMs { limits.runtimeMs = own }
        return limits
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
        let start = JobProgress.Start(
            pipeline: pipeline,
            plan: claim.planJSON.flatMap(GeneratorLine.plan(json:)) ?? [],
            statistics: await learned(),
            hints: hints
        )
        let progress = JobProgress(start, policy: worker.reportPolicy, nowMs: environment.nowMs) { self.reportSoon() }
        let outcome = await outcome(of: progress)
        let reporter = await endSurroundings(of: progress)

        let sign = sign(of: outcome)
        let action = EndAction.decide(outcome, stop: stop.reason, limits: limits)
        if action != .nothing, reporter != nil || !progress.isSilent {
            var reporter = reporter ?? self.reporter(of: progress)
            await reporter.flush { worker.isStopping ? store.settings.lease : WorkerLimits.endRetry }
        }
        let endedAtMs = environment.nowMs()
        // What is delivered lives elsewhere. First, because a job that comes along with the end shall not wait for a large directory.
        var isComplete = false
        if case .complete = action { isComplete = true }
        if isComplete, files != nil { await removeDirectory() }
        let (end, next) = await write(action, progress: progress)
        // Without a gateway the results live here.
        if !isComplete || end != .complete { await removeDirectory() }
        if end == .complete, let lesson = lesson(of: progress, endedAtMs: endedAtMs) {
            if next == nil {
                await teach(lesson)
            } else {
                // A task of its own, because the next job starts now; when it is lost with the process, little is.
                Task(executorPreference: worker.loopExecutor) { await self.teach(lesson) }
            }
        }
        return Result(end: end, sign: sign, next: next)
    }

    /// The work, in a task of its own, because it alone is stopped by an order while all around it goes on.
    private func outcome(of progress: JobProgress) async -> WorkOutcome {
        // Claimed in the moment of a drain, say.
        guard stop.reason == nil else { return .stopped }
        prepareSurroundings(for: progress)
        let work: Task<WorkOutcome, Never>
        if backend.mayBlock || backend.usesFiles {
            // Not on the event loop.
            work = Task(executorPreference: nil) { await self.work(progress) }
        } else {
            // Begun here and now: what ends at once needs no turn of the loop.
            work = Task.immediate(executorPreference: worker.loopExecutor) { await self.work(progress) }
        }
        surround(work)
        stop.whenGiven { work.cancel() }
        return await work.value
    }

    /// Not on the event loop: to remove much takes a while.
    private func removeDirectory() async {
        guard backend.usesFiles else { return }
        let directory = directory
        _ = await onOwnThread { directory.remove() }
    }

    private func sign(of outcome: WorkOutcome) -> HealthSign {
        switch outcome {
        case .done: return .well
        case .stopped: return .unclear
        case .failed(let error) where error.didNotStart: return .couldNotStart(message: error.message)
        case .failed(let error):
            if stop.reason != nil { return .unclear }
            // What the generator itself calls hopeless is a judgement about the job: it ran.
            let isJudged = !error.isRecoverable && error.code != BackendError.noGatewayCode
            let isAtOnce = environment.nowMs() - startMs < WorkerLimits.instantFailureMs
            return isAtOnce && !isJudged ? .failedAtOnce(code: error.code) : .well
        }
    }

    // MARK: The work

    private func work(_ progress: JobProgress) async -> WorkOutcome {
        let directory = backend.usesFiles ? directory : nil
        do {
            try directory?.make()
            let inputs = try JobInput.list(paramsJSON: claim.paramsJSON)
            if let files, let directory {
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
                inputDirectory: directory?.input ?? "",
                outputDirectory: directory?.output ?? "",
                traceparent: claim.traceparent
            )
            progress.noteNews()
            let result = try await backend.run(job: job, events: BackendEvents { progress.receive($0) })
            if let quota = limits.quotaBytes, await isOverQuota(quota) { throw BackendError.quotaExceeded(quota) }
            guard let directory else { return .done(resultJSON: compose([], result, progress)) }
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
            if isForeign, DiskSpace.isMeant(by: error.message) || directory.map({ DiskSpace.isFull($0.output) }) ?? false {
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
}
