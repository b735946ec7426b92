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
            // The same for each repetition that may have run: its nonce makes the answer the same.
            var request: ClaimRequest?
            var isInDoubt = false
            do throws(StoreError) {
                let (status, next) = try await repeated { store throws(StoreError) in
                    if !isInDoubt { request = nextRequest() }
                    do throws(StoreError) {
                        return try await store.finish(lease, as: .complete, resultJSON: result, stagesMs: stages, then: request)
                    } catch {
                        isInDoubt = isInDoubt || error.mayHaveRun
                        throw error
                    }
                }
                guard case .job(let claim)? = next else { return (status == .done ? .complete : .lost, nil) }
                return (status == .done ? .complete : .lost, claim)
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
