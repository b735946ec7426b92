import JobStore
import Logging
import NIOCore
import ProgressCore
import Telemetry

/// Writes the progress, the log lines and the preview of one job, at the pace of its schedule, from its first state until the
/// work has ended. Redis that does not answer costs nothing but the states in between: the newest is kept, and on return the
/// fence decides whether it still counts.
struct Reporter {
    let store: any ProgressStore
    let lease: Lease
    let progress: JobProgress
    let stop: StopOrder
    let metrics: WorkerMetrics
    let environment: WorkerEnvironment
    let outputDirectory: String
    let logger: Logger

    private var schedule: ReportSchedule
    /// Number of the next write under this lease.
    private var write = 1
    private var backoff = Backoff()
    /// Lines on their way: sent again as they are when the reply was lost, so that the store knows them.
    private var lines: (write: Int, lines: [LogLine], dropped: Int)?
    private var logWrite = 1
    private var nextLogAtMs = 0
    private var nextPreviewAtMs = 0

    private static let logIntervalMs = 500

    init(
        store: any ProgressStore,
        lease: Lease,
        progress: JobProgress,
        stop: StopOrder,
        policy: ReportPolicy,
        metrics: WorkerMetrics,
        environment: WorkerEnvironment,
        outputDirectory: String,
        logger: Logger
    ) {
        self.store = store
        self.lease = lease
        self.progress = progress
        self.stop = stop
        self.schedule = ReportSchedule(policy: policy)
        self.metrics = metrics
        self.environment = environment
        self.outputDirectory = outputDirectory
        self.logger = logger
    }

    /// - Parameter bell: rung when something waits to be written at once, and at the end.
    mutating func run(_ bell: Doorbell) async {
        while !progress.isClosed, !Task.isCancelled, stop.reason != .leaseLost {
            do throws(StoreError) {
                var until = try await reportDueStates()
                until = min(until, try await writeSideChannels())
                backoff.reset()
                progress.sleepUntil(until)
                if progress.isClosed { return }
                await bell.wait(atMost: .milliseconds(max(0, until - environment.nowMs())))
            } catch {
                if Task.isCancelled { return }
                note(error)
                progress.sleepUntil(.min)
                await sitOut(backoff.next(random: environment.random()), bell)
            }
        }
    }

    /// The bell rings for every change of stage, too: only the end of the work cuts this pause short.
    private func sitOut(_ pause: Duration, _ bell: Doorbell) async {
        let next = ContinuousClock.now + pause
        while !progress.isClosed, !Task.isCancelled, .now < next { await bell.wait(atMost: next - .now) }
    }

    /// Writes what waits at the end of a job, before the end itself: changes of phase and stage, the newest step, log lines.
    /// Where Redis does not answer it is tried again until `patience` is over: the end would not arrive either.
    mutating func flush(patience: () -> Duration) async {
        let startMs = environment.nowMs()
        backoff.reset()
        while stop.reason != .leaseLost {
            do throws(StoreError) {
                return try await writeRest()
            } catch {
                note(error)
                let isOver = environment.nowMs() - startMs >= patience().wholeMilliseconds
                if error.code == .invalid || isOver || Task.isCancelled { return }
            }
            try? await Task.sleep(for: backoff.next(random: environment.random()))
        }
    }

    private mutating func writeRest() async throws(StoreError) {
        while let state = progress.firstMilestone, stop.reason != .leaseLost {
            try await write(state)
            schedule.sent(state, atMs: environment.nowMs())
            progress.removeMilestone(state)
        }
        let newest = progress.current()
        if schedule.isNews(newest), stop.reason != .leaseLost {
            try await write(newest)
            schedule.sent(newest, atMs: environment.nowMs())
        }
        while hasLines, stop.reason != .leaseLost { try await writeLines() }
    }

    // MARK: States

    /// Writes what is due and gives the time of the next look.
    private mutating func reportDueStates() async throws(StoreError) -> Int {
        while stop.reason != .leaseLost {
            let milestone = progress.firstMilestone
            let state = milestone ?? progress.current()
            let now = environment.nowMs()
            switch schedule.decide(state, atMs: now) {
            case .sendNow:
                try await write(state)
                schedule.sent(state, atMs: now)
                progress.published(state)
                if let milestone { progress.removeMilestone(milestone) }
            case .wait(let until): return until
            case .nothing:
                // Nothing new, but the clock may bring some: a stage may stall.
                guard milestone != nil else { return now + schedule.policy.barIntervalMs }
                if let milestone { progress.removeMilestone(milestone) }
            }
        }
        return environment.nowMs() + schedule.policy.barIntervalMs
    }

    private mutating func write(_ state: ProgressState) async throws(StoreError) {
        let number = write
        // Also when the reply is lost: the next write says more than this one, and has to count.
        write += 1
        let start = ContinuousClock.now
        let outcome: AdvanceOutcome
        do throws(StoreError) {
            let quietMs = max(0, environment.nowMs() - progress.lastNewsAtMs)
            outcome = try await store.advance(lease, write: number, to: state, quietMs: quietMs)
        } catch {
            guard error.code == .invalid else { throw error }
            // Repeating it would not help, and a generator does not die of its progress.
            note(error)
            return
        }
        metrics.reports.increment()
        let took = (ContinuousClock.now - start).components
        metrics.reportTime.record(microseconds: Int(took.seconds) * 1_000_000 + Int(took.attoseconds / 1_000_000_000_000))
        switch outcome {
        case .accepted(_, let wasClamped, let cancel):
            if wasClamped { metrics.clamped.increment() }
            if cancel != nil { stop.give(.cancelled) }
        case .lost: stop.give(.leaseLost)
        }
    }

    // MARK: Log and preview

    private mutating func writeSideChannels() async throws(StoreError) -> Int {
        var next = Int.max
        if hasLines {
            if environment.nowMs() >= nextLogAtMs {
                try await writeLines()
                nextLogAtMs = environment.nowMs() + Self.logIntervalMs
            }
            if hasLines { next = nextLogAtMs }
        }
        if environment.nowMs() >= nextPreviewAtMs, let path = progress.takePreview() {
            nextPreviewAtMs = environment.nowMs() + WorkerLimits.previewIntervalMs
            try await writePreview(path)
        }
        return next
    }

    private mutating func writeLines() async throws(StoreError) {
        let batch: (write: Int, lines: [LogLine], dropped: Int)
        if let lines {
            batch = lines
        } else {
            let (taken, dropped) = progress.takeLines(atMost: StoreLimits.logLinesPerWrite)
            batch = (logWrite, taken, dropped)
            logWrite += 1
            lines = batch
        }
        do throws(StoreError) {
            obey(try await store.appendLog(lease, write: batch.write, batch.lines, droppedBefore: batch.dropped))
            metrics.logLinesDropped.increment(by: batch.dropped)
        } catch {
            guard error.code == .invalid else { throw error }
            note(error)
        }
        lines = nil
    }

    private var hasLines: Bool { lines != nil || progress.hasLines }

    private mutating func writePreview(_ path: String) async throws(StoreError) {
        let directory = outputDirectory
        // Not on the event loop: a disk may be slow.
        let read = await onOwnThread { OutputFile.read(path, in: directory, atMost: StoreLimits.previewBytes) }
        guard let bytes = read ?? nil,
            let type = ImageType(of: ByteBuffer(bytes: bytes))
        else {
            logger.debug("preview skipped, not a small image in the output directory", metadata: ["job.id": "\(lease.job)"])
            return
        }
        do throws(StoreError) {
            obey(try await store.setPreview(lease, image: ByteBuffer(bytes: bytes), contentType: type.contentType))
        } catch {
            guard error.code == .invalid else { throw error }
            note(error)
        }
    }

    private func obey(_ status: LeaseStatus) {
        switch status {
        case .held: break
        case .cancelRequested: stop.give(.cancelled)
        case .lost: stop.give(.leaseLost)
        }
    }

    private func note(_ error: StoreError) {
        metrics.storeErrors.increment()
        logger.debug("progress not written", metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"])
    }
}
