import JobStore
import Logging
import Telemetry

/// What is written when the work has ended.
extension JobRun {
    /// Returns how it ended, and the job that came along with a good end.
    func write(_ action: EndAction, progress: JobProgress) async -> (end: JobEnd, next: Claim?) {
        let stages = progress.stageDurations()
        switch action {
        case .nothing: return (.lost, nil)
        case .complete(let result):
            do throws(StoreError) {
                return try await complete(result, stages)
            } catch {
                guard error.code == .invalid else { return (.lost, nil) }
                return await write(.fail(.outputRejected(error.message, isRecoverable: false)), progress: progress)
            }
        case .acknowledgeCancel:
            let end = await ended(.cancelled) { store throws(StoreError) in
                try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: stages) == .done
            }
            return (end, nil)
        case .fail(let error):
            logger.notice("job failed", metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code)"])
            let end = await ended(.failed) { store throws(StoreError) in
                try await store.fail(lease, error: error.jobError, stagesMs: stages) != .lost
            }
            return (end, nil)
        case .release:
            return (await ended(.released) { store throws(StoreError) in try await store.release(lease) != .lost }, nil)
        }
    }

    /// The good end, and with it the next job.
    private func complete(_ result: String, _ stages: [(stage: String, ms: Int)]) async throws(StoreError) -> (end: JobEnd, next: Claim?) {
        // The same for each repetition that may have run: the ended job remembers what came along, and answers the same.
        var request: ClaimRequest?
        var isInDoubt = false
        var patience = Patience()
        while true {
            if !isInDoubt { request = worker.nextRequest(after: claim) }
            do throws(StoreError) {
                let (status, next) = try await store.finish(lease, as: .complete, resultJSON: result, stagesMs: stages, then: request)
                guard status == .done else { return (.lost, nil) }
                guard case .job(let claim)? = next else { return (.complete, nil) }
                return (.complete, claim)
            } catch {
                isInDoubt = isInDoubt || error.mayHaveRun
                try await pause(after: error, &patience)
            }
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
        var patience = Patience()
        while true {
            do throws(StoreError) {
                return try await verb(store)
            } catch {
                try await pause(after: error, &patience)
            }
        }
    }

    private struct Patience {
        var backoff = Backoff()
        /// When it was lost first.
        var sinceMs: Int?
    }

    /// Waits before a repetition; throws the error when there is to be none.
    private func pause(after error: StoreError, _ patience: inout Patience) async throws(StoreError) {
        metrics.storeErrors.increment()
        let nowMs = environment.nowMs()
        let sinceMs = patience.sinceMs ?? nowMs
        patience.sinceMs = sinceMs
        let limit = worker.isStopping ? store.settings.lease : WorkerLimits.endRetry
        if error.code == .invalid || Task.isCancelled || nowMs - sinceMs >= limit.wholeMilliseconds { throw error }
        try? await Task.sleep(for: patience.backoff.next(random: environment.random()))
    }
}
