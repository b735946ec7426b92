import JobStore
import Logging
import NIOCore
import ProgressCore
import Synchronization
import Telemetry

/// Where jobs come from and what becomes of the worker when they end.
extension Worker {
    /// Claims while there is room, and stays until the last job has ended.
    func claimAndRun(directory: String, files: GatewayFiles?) async {
        await withTaskCancellationHandler {
            await withDiscardingTaskGroup { group in
                while !isDraining, !Task.isCancelled {
                    guard state.withLock({ $0.running.count }) < configuration.concurrency else {
                        await slotBell.wait(atMost: WorkerLimits.longestWait)
                        continue
                    }
                    if let pause = state.withLock({ $0.crashLoop.pause }) {
                        await sitOut(pause)
                        continue
                    }
                    guard let claim = await nextClaim() else { continue }
                    let first = begin(claim, after: nil, directory: directory, files: files)
                    group.addTask {
                        // A slot goes on with what came along with the end of its last job.
                        var run = first
                        while true {
                            let result = await run.run()
                            self.ended(run.claim, result)
                            guard let next = result.next else { return self.leaveSlot(run.claim) }
                            run = self.begin(next, after: run.claim, directory: directory, files: files)
                        }
                    }
                    // Only now, because whoever listens runs before what is enqueued later, and the job comes first.
                    tellOfTakenSlot()
                }
            }
        } onCancel: {
            let (runs, wait) = state.withLock { state in
                state.isCancelled = true
                return (Array(state.running.values), state.wait)
            }
            wait?.cancel()
            for run in runs { run.cancel() }
        }
    }

    private func ended(_ claim: Claim, _ result: JobRun.Result) {
        let (end, sign) = (result.end, result.sign)
        metrics.count(end)
        metrics.running.add(-1)
        let nowMs = environment.nowMs()
        let (before, after) = state.withLock { state in
            if end == .complete { state.finished += 1 }
            if end == .failed { state.failed += 1 }
            let before = state.crashLoop.pause
            state.crashLoop.note(sign, nowMs: nowMs, random: environment.random())
            return (before, state.crashLoop.pause)
        }
        if after != before { showPause(after) }
        logger.info(
            "job ended",
            metadata: [
                "job.id": .string(claim.lease.job.text), "outcome": .string(end.rawValue), "attempt": .stringConvertible(claim.attempt),
            ]
        )
        recordBell.ring()
    }

    private func leaveSlot(_ claim: Claim) {
        state.withLock { state in
            state.running[claim.lease.fence] = nil
            // The only slot: whatever came since its claim has left a token, and nobody here took one.
            if claim.isLast, isAlone { state.isLineEmpty = true }
        }
        slotBell.ring()
    }

    /// One slot, one queue and no label: then the last claim says all there is to know about the line.
    private var isAlone: Bool { configuration.concurrency == 1 && configuration.queues.count == 1 && configuration.labels.isEmpty }

    /// What to ask for along with the good end of a job; nil where the claim loop has to decide.
    func nextRequest(after claim: Claim) -> ClaimRequest? {
        // Only its first queue: a later one comes when those before it are empty.
        guard claim.lease.queue == configuration.queues.first, !(claim.isLast && isAlone) else { return nil }
        guard state.withLock({ $0.stage == .serving && $0.crashLoop.pause == nil }), !Task.isCancelled else { return nil }
        return ClaimRequest(queue: claim.lease.queue, worker: configuration.name, labels: configuration.labels)
    }

    // MARK: Crash loop

    /// Waits until the pause is over or some job ends well; then the command is looked at again, where that was the trouble.
    private func sitOut(_ pause: CrashLoopGuard.Pause) async {
        let left = pause.untilMs - environment.nowMs()
        if left > 0 { return await slotBell.wait(atMost: .milliseconds(left)) }
        guard pause.isForStart else { return end(pause) }
        do throws(BackendError) {
            try backend.check()
            end(pause)
        } catch {
            let random = environment.random()
            let nowMs = environment.nowMs()
            let next = state.withLock { state in
                state.crashLoop.note(.couldNotStart(message: error.message), nowMs: nowMs, random: random)
                return state.crashLoop.pause
            }
            showPause(next)
        }
    }

    private func end(_ pause: CrashLoopGuard.Pause) {
        let next = state.withLock { state in
            if state.crashLoop.pause == pause { state.crashLoop.resume() }
            return state.crashLoop.pause
        }
        showPause(next)
    }

    private func showPause(_ pause: CrashLoopGuard.Pause?) {
        metrics.slowed.set(pause == nil ? 0 : 1)
        if let pause {
            metrics.slowdowns.increment()
            logger.warning(
                "jobs fail at once or cannot be started: slowing down",
                metadata: ["worker.id": "\(configuration.name)", "duration.ms": "\(max(0, pause.untilMs - environment.nowMs()))"]
            )
        }
        recordBell.ring()
    }

    // MARK: The next job

    /// The next job, or nil after a wait in which none came.
    private func nextClaim() async -> Claim? {
        var plan = WaitPlan()
        // After a claim that emptied the line, asking again would be a command for nothing: whatever came since has left a token.
        let isLineEmpty = state.withLock { state in
            defer { state.isLineEmpty = false }
            return state.isLineEmpty
        }
        for queue in isLineEmpty ? [] : configuration.queues {
            switch await claim(queue) {
            case .job(let claim)?:
                state.withLock { $0.isLineEmpty = claim.isLast && configuration.queues.count == 1 && configuration.labels.isEmpty }
                return claim
            case .empty(let due)?:
                plan.note(queue, dueMs: due)
                let nowMs = environment.nowMs()
                state.withLock { $0.reaps.note(queue, dueAtMs: due.map { nowMs + $0 }) }
            case .paused?: plan.notePaused(queue)
            case nil: return nil
            }
            if isDraining { return nil }
        }
        for queue in plan.wantsReap { await reap(queue) }
        let wait = plan.wait(settings: store.settings, random: environment.random())
        await block(atMost: wait)
        return nil
    }

    /// Waits until there may be work, the time is over or the worker drains.
    private func block(atMost time: Duration) async {
        // A task of its own, because a drain ends it alone.
        let wait = Task.immediate(executorPreference: loopExecutor) {
            do throws(StoreError) {
                try await self.store.waitForWork(queues: self.configuration.queues, labels: self.configuration.labels, atMost: time)
            } catch {
                guard !Task.isCancelled else { return }
                self.metrics.storeErrors.increment()
                try? await Task.sleep(for: .milliseconds(WorkerLimits.retryDelayMs.lowerBound))
            }
        }
        let isOver = state.withLock { state in
            state.wait = wait
            return state.stage >= .draining || state.isCancelled
        }
        if isOver { wait.cancel() }
        await wait.value
        state.withLock { $0.wait = nil }
    }

    private func pauseUnlessDraining(_ time: Duration) async {
        if !isDraining { await interruptBell.wait(atMost: time) }
    }

    /// One claim, repeated under the same nonce while its reply is in doubt: a lost reply must not lose a job.
    private func claim(_ queue: String) async -> ClaimOutcome? {
        let nonce = environment.makeNonce()
        let startMs = environment.nowMs()
        var backoff = Backoff()
        var isInDoubt = false
        while !Task.isCancelled {
            do throws(StoreError) {
                let outcome = try await store.claim(
                    queue: queue,
                    worker: configuration.name,
                    nonce: nonce,
                    labels: configuration.labels
                )
                if case .job = outcome { metrics.claims.increment() }
                return outcome
            } catch {
                metrics.storeErrors.increment()
                isInDoubt = isInDoubt || error.mayHaveRun
                let patience = isDraining ? store.settings.heartbeat : WorkerLimits.claimRetry
                let isOver = environment.nowMs() - startMs >= patience.wholeMilliseconds
                if isOver || (isDraining && !isInDoubt) { return nil }
                logger.debug("claim failed", metadata: ["queue.name": "\(queue)", "error.code": "\(error.code.rawValue)"])
                let delay = backoff.next(random: environment.random())
                if isInDoubt { try? await Task.sleep(for: delay) } else { await pauseUnlessDraining(delay) }
            }
        }
        return nil
    }

    /// - Parameter last: whose slot the job takes.
    private func begin(_ claim: Claim, after last: Claim?, directory: String, files: GatewayFiles?) -> JobRun {
        // Names come from submitters; a forgotten one only costs a hint.
        let (number, isFirst) = state.withLock { state in
            state.claims += 1
            if state.seenPipelines.count == WorkerLimits.seenPipelines { state.seenPipelines.removeAll() }
            return (state.claims, state.seenPipelines.insert(claim.pipeline).inserted)
        }
        let run = JobRun(
            claim,
            worker: self,
            pipeline: pipelines[claim.pipeline] ?? pipelines[configuration.pipeline] ?? Pipeline(name: claim.pipeline, stages: []),
            parentDirectory: directory,
            number: number,
            files: files,
            isFirstOfItsPipeline: isFirst,
            startMs: environment.nowMs()
        )
        let (isDraining, isCancelled, watchesStarts) = state.withLock { state in
            if let last { state.running[last.lease.fence] = nil }
            state.running[claim.lease.fence] = run
            defer { state.isWatchingStarts = true }
            return (state.stage >= .draining, state.isCancelled, state.isWatchingStarts)
        }
        if last != nil { metrics.claims.increment() }
        metrics.running.add(1)
        if !watchesStarts { watchStarts(inMs: WorkerLimits.firstReportMs) }
        // Claimed in the moment of the drain: straight back.
        if isDraining { run.stop.give(.shutdown) }
        if isCancelled { run.cancel() }
        logger.info("job claimed", metadata: ["job.id": .string(claim.lease.job.text), "attempt": .stringConvertible(claim.attempt)])
        return run
    }

    private func tellOfTakenSlot() {
        recordBell.ring()
        if state.withLock({ $0.running.count >= configuration.concurrency }) { busyBell.ring() }
    }

    /// One timer for all jobs that began lately: what has run for a moment gets its heartbeats, reports and limits.
    private func watchStarts(inMs delayMs: Int) {
        eventLoop.scheduleTask(in: .milliseconds(Int64(delayMs))) {
            let moment = WorkerLimits.firstReportMs
            let nowMs = self.environment.nowMs()
            let (due, nextMs) = self.state.withLock { state -> ([JobRun], Int?) in
                let nextMs = state.running.values.lazy.map { $0.startMs + moment }.filter { $0 > nowMs }.min()
                state.isWatchingStarts = nextMs != nil
                return (state.running.values.filter { $0.startMs + moment <= nowMs }, nextMs)
            }
            for run in due { run.beginSurroundings() }
            if let nextMs { self.watchStarts(inMs: nextMs - nowMs) }
        }
    }
}
