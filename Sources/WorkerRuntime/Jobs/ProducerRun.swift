import Glibc
public import JobStore
public import Logging
public import NIOCore
public import ProgressCore
import Synchronization
public import Telemetry

/// Opens progress-only jobs and writes them: a job store, or a gateway.
public protocol ProducerStore: ProgressStore {
    /// Between two signs of life.
    var heartbeatInterval: Duration { get }

    /// Creates the job; the same nonce gives the same lease.
    func openJob(_ job: ProducerSubmission) async throws(StoreError) -> Lease
}

extension JobStore: ProducerStore {
    public var heartbeatInterval: Duration { settings.heartbeat }

    public func openJob(_ job: ProducerSubmission) async throws(StoreError) -> Lease { try await open(job).lease }
}

/// Runs one command as a job of its own, without a queue: `headway run`.
///
/// The command comes first: it runs whether or not its progress can be written, and ends as it ends. What could not be written is
/// kept as far as there is room, and written on return, if the job still counts.
public final class ProducerRun: Sendable {
    /// How the command ended.
    public enum Exit: Sendable, Hashable {
        case status(Int32)
        case signal(Int32)
    }

    public struct Ended: Sendable, Hashable {
        public let exit: Exit
        /// What was written as the job's end; nil when nothing could be.
        public let phase: Phase?
    }

    public struct Configuration: Sendable {
        public var command: [String]
        public var pipeline: Pipeline
        public var environment: [String: String]
        public var readsBars = true
        /// Nil: the output is pipes.
        public var terminal: TerminalSize?
        /// From SIGTERM to SIGKILL, when the job is cancelled.
        public var grace: Duration = .seconds(10)
        public var updatesPerSecond = 4.0
        public var worker = WorkerEnvironment()

        public init(command: [String], pipeline: Pipeline, environment: [String: String]) {
            self.command = command
            self.pipeline = pipeline
            self.environment = environment
        }
    }

    private let configuration: Configuration
    private let submission: ProducerSubmission
    private let store: any ProducerStore
    private let mirror: OutputMirror
    private let program: GeneratorCommand
    private let progress: JobProgress
    private let stop = StopOrder()
    private let control = StopSwitch()
    private let metrics: WorkerMetrics
    private let logger: Logger
    private let bell: Doorbell
    private let policy: ReportPolicy
    /// Signals that were passed on.
    private let signals = Mutex(0)

    public init(
        _ configuration: Configuration,
        job submission: ProducerSubmission,
        store: any ProducerStore,
        mirror: OutputMirror,
        registry: MetricsRegistry,
        group: any EventLoopGroup,
        logger: Logger
    ) {
        bell = Doorbell(group.next())
        self.configuration = configuration
        self.submission = submission
        self.store = store
        self.mirror = mirror
        self.logger = logger
        metrics = WorkerMetrics(registry)
        program = GeneratorCommand(configuration.command, environment: configuration.environment)
        policy = ReportPolicy(maxPerSecond: configuration.updatesPerSecond)
        progress = JobProgress(
            JobProgress.Start(pipeline: configuration.pipeline),
            policy: policy,
            nowMs: configuration.worker.nowMs,
            onNews: bell.ring
        )
    }

    /// The progress to show now.
    public var state: ProgressState { progress.current() }

    /// Passes a signal on to the command; after several of them it is stopped for good.
    public func pass(_ signal: Int32) {
        let count = signals.withLock { count in
            count += 1
            return count
        }
        if count > WorkerLimits.passedSignals { control.ask() } else { control.pass(signal) }
    }

    /// Runs the command to its end.
    ///
    /// - Throws: `BackendError` when the command cannot be started, `StoreError` when the job cannot be opened for a reason that
    ///   waiting does not cure, before the command was started.
    public func run() async throws -> Ended {
        let supervisor = ProcessSupervisor(
            executable: try program.executable(),
            arguments: program.arguments,
            environment: program.variables(
                terminal: configuration.terminal,
                defaults: GeneratorCommand.shown,
                adding: ["HEADWAY_JOB_ID": submission.id.text, "HEADWAY_ATTEMPT": "1"]
            ),
            input: .inherited,
            graceMs: configuration.grace.wholeMilliseconds,
            terminal: configuration.terminal,
            stop: control,
            events: BackendEvents { [progress] in progress.receive($0) },
            pipeline: configuration.pipeline,
            readsBars: configuration.readsBars,
            mirror: mirror
        )
        let lease = try await openAtFirst()
        stop.whenGiven { [control, stop] in
            // A job that was lost is nobody's reason to end the command.
            if stop.reason != .leaseLost { control.ask() }
        }
        // Tasks of their own, because the command outlives whatever becomes of its record, and the record ends after it.
        let work = Task { try await GeneratorCommand.supervise(supervisor) }
        let record = Task { await self.record(lease) }
        let outcome: ProcessSupervisor.Outcome
        do {
            outcome = try await work.value
        } catch {
            progress.close()
            if let recorder = await record.value, let error = error as? BackendError { _ = await end(recorder.lease, .fail(error)) }
            throw error
        }
        progress.close()
        let phase = await finish(outcome, recorder: await record.value)
        switch outcome.exit {
        case .status(let status): return Ended(exit: .status(status), phase: phase)
        case .signal(let signal): return Ended(exit: .signal(signal), phase: phase)
        case .unknown: return Ended(exit: .signal(SIGKILL), phase: phase)
        }
    }

    // MARK: The record

    /// Nil when the store cannot be reached now.
    private func openAtFirst() async throws(StoreError) -> Lease? {
        let deadline = ContinuousClock.now + WorkerLimits.producerOpenWait
        while true {
            do throws(StoreError) {
                return try await store.openJob(submission)
            } catch {
                guard error.code == .unavailable else { throw error }
                if ContinuousClock.now < deadline {
                    try? await Task.sleep(for: .milliseconds(50))
                    continue
                }
            }
            logger.warning("the job cannot be written yet, the command runs", metadata: ["job.id": "\(submission.id)"])
            return nil
        }
    }

    /// Writes what happens until the command has ended; nil when the job was never opened or is not ours any more.
    private func record(_ opened: Lease?) async -> Reporter? {
        var lease = opened
        var backoff = Backoff()
        while lease == nil, !progress.isClosed {
            // The bell rings for every change of stage, too: only the command's end cuts the wait short.
            let next = ContinuousClock.now + backoff.next(random: configuration.worker.random())
            while !progress.isClosed, .now < next { await bell.wait(atMost: next - .now) }
            do throws(StoreError) {
                lease = try await store.openJob(submission)
            } catch {
                guard error.code == .unavailable else {
                    logger.warning("the job cannot be written", metadata: ["error.code": "\(error.code.rawValue)"])
                    return nil
                }
            }
        }
        guard let lease else { return nil }
        let initial = Reporter(
            store: store,
            lease: lease,
            progress: progress,
            stop: stop,
            policy: policy,
            metrics: metrics,
            environment: configuration.worker,
            outputDirectory: ".",
            logger: logger
        )
        let reporter = await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.keepLease(lease) }
            var reporter = initial
            // A change of phase or stage rings at once.
            if !progress.isClosed { await bell.wait(atMost: .milliseconds(WorkerLimits.firstReportMs)) }
            await reporter.run(bell)
            group.cancelAll()
            return reporter
        }
        return stop.reason == .leaseLost ? nil : reporter
    }

    private func keepLease(_ lease: Lease) async {
        while !Task.isCancelled {
            try? await Task.sleep(for: store.heartbeatInterval)
            if Task.isCancelled { return }
            do throws(StoreError) {
                switch try await store.heartbeat(lease) {
                case .held: break
                case .cancelRequested: stop.give(.cancelled)
                case .lost:
                    logger.warning("the job has ended without its command", metadata: ["job.id": "\(lease.job)"])
                    stop.give(.leaseLost)
                    return
                }
            } catch {
                logger.debug("no sign of life", metadata: ["error.code": "\(error.code.rawValue)"])
            }
        }
    }

    // MARK: The end

    private func finish(_ outcome: ProcessSupervisor.Outcome, recorder: Reporter?) async -> Phase? {
        guard var recorder else { return nil }
        await recorder.flush { WorkerLimits.producerEndRetry }
        let wasInterrupted = signals.withLock { $0 } > 0 || stop.reason == .cancelled
        if let failure = outcome.failure {
            return await end(recorder.lease, wasInterrupted ? .acknowledgeCancel : .fail(failure))
        }
        return await end(recorder.lease, .complete(resultJSON: outcome.resultJSON ?? "{}"))
    }

    /// Repeats the end for a while when the store cannot be reached; the command's own end does not wait for longer.
    private func end(_ lease: Lease, _ action: EndAction) async -> Phase? {
        let stages = progress.stageDurations()
        var backoff = Backoff()
        let deadline = ContinuousClock.now + WorkerLimits.producerEndRetry
        while true {
            do throws(StoreError) {
                switch action {
                case .complete(let json):
                    return try await store.finish(lease, as: .complete, resultJSON: json, stagesMs: stages) == .done ? .complete : nil
                case .acknowledgeCancel:
                    return try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: stages) == .done ? .cancelled : nil
                case .fail(let error):
                    return try await store.fail(lease, error: error.jobError, stagesMs: stages) == .lost ? nil : .failed
                case .release, .nothing: return nil
                }
            } catch {
                guard error.code == .unavailable, ContinuousClock.now < deadline else {
                    logger.warning("the end of the job was not written", metadata: ["error.code": "\(error.code.rawValue)"])
                    return nil
                }
            }
            try? await Task.sleep(for: backoff.next(random: configuration.worker.random()))
        }
    }
}
