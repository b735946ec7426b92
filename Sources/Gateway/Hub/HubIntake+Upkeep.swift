import DequeModule
import JobStore
import NIOCore
import ProgressCore
import Telemetry

/// What happens by the clock: silent jobs are compared with Redis, waiting watches run out, idle subscriptions end, places in
/// line are read.
extension HubIntake {
    /// Granularity of everything here.
    static let tickPause = TimeAmount.milliseconds(200)

    static func wheelSlots(_ limits: HubLimits) -> Int { Int(limits.staleness.nanoseconds / tickPause.nanoseconds) + 2 }

    func start() {
        eventLoop.assertInEventLoop()
        guard ticker == nil else { return }
        ticker = eventLoop.scheduleRepeatedTask(initialDelay: Self.tickPause, delay: Self.tickPause) { [weak self] _ in self?.tick() }
    }

    func stop() {
        ticker?.cancel()
        ticker = nil
    }

    private func tick() {
        let now = eventLoop.now
        tickCount += 1
        verifySilentJobs(now)
        expireParked(now)
        expireLingering(now)
        if tickCount % 5 == 0 {
            repairSubscriptions(now)
            readPlaces()
        }
        flush()
    }

    // MARK: Reconciling

    /// Each entry stands in the wheel once, at the moment when it would have been silent for too long.
    func enterWheel(_ entry: JobEntry, in delay: TimeAmount) {
        guard !entry.isInWheel else { return }
        entry.isInWheel = true
        let slots = Int((delay.nanoseconds + Self.tickPause.nanoseconds - 1) / Self.tickPause.nanoseconds)
        let slot = (wheelPosition + min(max(1, slots), wheel.count - 1)) % wheel.count
        wheel[slot].append(entry)
    }

    private func verifySilentJobs(_ now: NIODeadline) {
        wheelPosition = (wheelPosition + 1) % wheel.count
        let due = wheel[wheelPosition]
        guard !due.isEmpty else { return }
        wheel[wheelPosition] = []
        var silent: [JobEntry] = []
        for entry in due where !entry.isRemoved {
            entry.isInWheel = false
            let age = now - entry.heardAt
            if age < limits.staleness {
                enterWheel(entry, in: limits.staleness - age)
            } else if entry.reading != .idle || entry.hasEnded || entry.isIdle {
                enterWheel(entry, in: limits.staleness)
            } else {
                entry.verifications += 1
                if entry.verifications % limits.verificationsPerHead == 0 {
                    enterWheel(entry, in: limits.staleness)
                    requestRead(entry)
                } else {
                    silent.append(entry)
                }
            }
        }
        for start in stride(from: 0, to: silent.count, by: limits.jobsPerRead) {
            verify(Array(silent[start..<min(silent.count, start + limits.jobsPerRead)]))
        }
    }

    /// Compares seq only; the whole state is read where it differs.
    private func verify(_ batch: [JobEntry]) {
        let known = batch.map(\.feed.seq)
        for entry in batch { enterWheel(entry, in: limits.staleness) }
        source?.sequences(batch.map(\.job)).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
            guard case .success(let found) = result else {
                metrics.failedReads.increment(by: batch.count)
                return
            }
            for (index, entry) in batch.enumerated() where !entry.isRemoved {
                if found[index] == known[index] {
                    entry.heardAt = eventLoop.now
                } else if entry.feed.seq == known[index] {
                    metrics.reconciled.increment()
                    requestRead(entry)
                }
            }
        }
    }

    // MARK: Waiting for a job to appear

    private func expireParked(_ now: NIODeadline) {
        while let (entry, joiner) = parked.first {
            if !joiner.isSettled {
                guard let deadline = joiner.deadline, deadline <= now else { return }
                joiner.isSettled = true
                entry.joiners.removeAll { $0 === joiner }
                if case .watcher(let watcher, let link) = joiner.kind { put(.refuse(watcher, .refused(.jobNotFound)), on: link) }
                lingerIfIdle(entry)
            }
            parked.removeFirst()
        }
    }

    // MARK: Letting go

    /// The last watcher left: the subscription stays a moment, in case somebody comes back.
    func lingerIfIdle(_ entry: JobEntry) {
        guard entry.isIdle, !entry.isLingering, !entry.isRemoved else { return }
        entry.isLingering = true
        lingering.append((entry, eventLoop.now + limits.linger))
        while lingering.count > limits.lingeringJobs, let (oldest, _) = lingering.popFirst() { release([oldest]) }
    }

    private func expireLingering(_ now: NIODeadline) {
        var due: [JobEntry] = []
        while let (entry, until) = lingering.first, until <= now {
            lingering.removeFirst()
            due.append(entry)
        }
        if !due.isEmpty { release(due) }
    }

    private func release(_ batch: [JobEntry]) {
        var channels: [String] = []
        for entry in batch where entry.isLingering && entry.isIdle && !entry.isRemoved {
            guard entry.reading == .idle else {
                // It is asked again when the read is done.
                entry.isLingering = false
                continue
            }
            entry.isRemoved = true
            entries.removeValue(forKey: entry.job)
            byChannel.removeValue(forKey: ByteBuffer(string: entry.channel))
            channels.append(entry.channel)
        }
        metrics.jobs.set(entries.count)
        if !channels.isEmpty { source?.unsubscribe(channels) }
    }

    // MARK: Subscriptions

    private func repairSubscriptions(_ now: NIODeadline) {
        for entry in entries.values where entry.subscription != .active && !entry.isIdle {
            if entry.subscription == .missing { requestSubscription(entry) }
            // Redis answers reads but not subscriptions: better a state that is read again and again than none.
            if now - entry.subscribedAt >= limits.subscribePatience, entry.joiners.contains(where: { $0.deadline == nil && !$0.isDenied }) {
                requestRead(entry)
            }
        }
    }
}
