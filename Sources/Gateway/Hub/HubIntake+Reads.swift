import DequeModule
import JobStore
import NIOCore
import ProgressCore
import Telemetry

/// Subscribing, and reading the truth: what opens watchers, fills gaps and heals.
///
/// Reads of many jobs travel together, and at most a few at a time, so a storm of watchers or a reconnect waits here and not in
/// Redis. One read of a job answers everybody who waits for it.
extension HubIntake {
    // MARK: Entries and subscriptions

    func entry(of job: JobID) -> JobEntry? {
        if let entry = entries[job] { return entry }
        guard entries.count < limits.jobs, let source else { return nil }
        let entry = JobEntry(job: job, channel: source.channel(of: job), now: eventLoop.now)
        entries[job] = entry
        byChannel[ByteBuffer(string: entry.channel)] = entry
        metrics.jobs.set(entries.count)
        requestSubscription(entry)
        enterWheel(entry, in: limits.staleness)
        return entry
    }

    func requestSubscription(_ entry: JobEntry) {
        guard entry.subscription == .missing, !entry.isRemoved else { return }
        entry.subscription = .requested
        entry.subscribedAt = eventLoop.now
        subscribeQueue.append(entry)
        guard !isSubscribeScheduled else { return }
        isSubscribeScheduled = true
        eventLoop.execute { [self] in
            isSubscribeScheduled = false
            subscribeAll()
        }
    }

    private func subscribeAll() {
        let all = subscribeQueue.filter { !$0.isRemoved }
        subscribeQueue = []
        for start in stride(from: 0, to: all.count, by: limits.channelsPerSubscribe) {
            let batch = Array(all[start..<min(all.count, start + limits.channelsPerSubscribe)])
            source?.subscribe(batch.map(\.channel)).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
                for entry in batch where !entry.isRemoved { subscribed(entry, result) }
                flush()
            }
        }
    }

    private func subscribed(_ entry: JobEntry, _ result: Result<Void, any Error>) {
        guard case .success = result else {
            // Tried again with the next tick, or as soon as the link is back.
            entry.subscription = .missing
            return
        }
        entry.subscription = .active
        // Also for those that were opened without it: what was published before the acknowledgement may be lost.
        if !entry.isIdle { requestRead(entry) }
    }

    // MARK: Joining

    /// Opens it from what is known, or reads first.
    func admit(_ joiner: Joiner, to entry: JobEntry) {
        entry.isLingering = false
        if let newest = entry.feed.newest, isFresh(entry), let owner = entry.owner, joiner.principal.mayView(owner),
            joiner.since == nil || joiner.since == newest.seq
        {
            open(joiner, of: entry, newest: newest, milestones: [])
            return
        }
        joiner.readsBefore = entry.readsSent
        entry.joiners.append(joiner)
        // The first snapshot is read after the acknowledgement, so nothing falls between it and the first event.
        if entry.subscription == .active { requestRead(entry) }
    }

    /// What is known needs no read: the subscription works and said so a moment ago.
    private func isFresh(_ entry: JobEntry) -> Bool {
        entry.subscription == .active && isLinkUp && !entry.feed.isBroken
            && (entry.hasEnded || eventLoop.now - entry.heardAt < limits.freshness)
    }

    private func open(_ joiner: Joiner, of entry: JobEntry, newest: OutboundEvent, milestones: [OutboundEvent]) {
        joiner.isSettled = true
        switch joiner.kind {
        case .poll(let waiter):
            open(waiter, of: entry, newest: newest)
        case .watcher(let watcher, let link):
            link.openCount += 1
            let since = joiner.since ?? newest.seq
            var opening = Opening(snapshot: milestones.last { $0.seq == newest.seq } ?? newest)
            opening.begin = joiner.since == nil ? newest.seq - 1 : nil
            opening.replay = milestones.filter { $0.seq > since && $0.seq < newest.seq }
            opening.reset = since > newest.seq ? resetEvent(entry, to: newest) : nil
            opening.place = newest.phase == .queued ? entry.placeEvent : nil
            put(.open(watcher, opening), on: link)
            noteLine(of: entry)
        }
    }

    func resetEvent(_ entry: JobEntry, to newest: OutboundEvent) -> OutboundEvent {
        let body = EventWriter.reset(job: entry.job, seq: newest.seq, atMs: WallClock.nowMs())
        return OutboundEvent(kind: .reset, seq: newest.seq, phase: newest.phase, body: body, for: entry.interest)
    }

    // MARK: Heads

    func requestRead(_ entry: JobEntry) {
        guard !entry.isRemoved else { return }
        switch entry.reading {
        case .idle:
            entry.reading = .queued
            readQueue.append(entry)
            scheduleReads()
        case .queued:
            break
        case .active:
            entry.readsAgain = true
        }
    }

    /// Once per turn of the loop, so that all who ask in it share the reads.
    private func scheduleReads() {
        guard !isReadScheduled else { return }
        isReadScheduled = true
        eventLoop.execute { [self] in
            isReadScheduled = false
            sendReads()
        }
    }

    private func sendReads() {
        while readsInFlight < limits.concurrentReads, !readQueue.isEmpty {
            var batch: [JobEntry] = []
            while batch.count < limits.jobsPerRead, let entry = readQueue.popFirst() {
                guard !entry.isRemoved else { continue }
                entry.reading = .active
                entry.readsAgain = false
                entry.issuedAt = entry.feed.seq
                entry.readsSent += 1
                batch.append(entry)
            }
            guard !batch.isEmpty, let source else { return }
            readsInFlight += 1
            metrics.reads.increment(by: batch.count)
            let issued = batch
            source.heads(batch.map(\.job)).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
                readsInFlight -= 1
                switch result {
                case .success(let heads):
                    readSucceeded()
                    for (entry, head) in zip(issued, heads) where !entry.isRemoved { didRead(entry, head) }
                case .failure:
                    readFailed(issued)
                }
                flush()
                sendReads()
            }
        }
    }

    private func didRead(_ entry: JobEntry, _ head: JobHead?) {
        if let head { entry.owner = head.owner }
        let event = head.map { OutboundEvent(head: $0, for: entry.interest) }
        let verdict = entry.feed.read(head: event, issuedAt: entry.issuedAt, isWatched: entry.isWatched)
        if verdict != .unclear { entry.heardAt = eventLoop.now }
        switch verdict {
        case .absent:
            settleAbsent(entry)
            finishRead(entry)
        case .gone:
            tellGone(entry)
            settleAbsent(entry)
            finishRead(entry)
        case .unclear:
            entry.readsAgain = true
            finishRead(entry)
        case .reset:
            metrics.resets.increment()
            if let newest = entry.feed.newest {
                forward(resetEvent(entry, to: newest), for: entry)
                forward(newest, for: entry)
            }
            readMilestonesOrOpen(entry, after: nil)
        case .adopted, .unchanged:
            readMilestonesOrOpen(entry, after: nil)
        case .behind(let after):
            readMilestonesOrOpen(entry, after: after, upTo: event?.seq ?? 0)
        }
    }

    private func tellGone(_ entry: JobEntry) {
        entry.owner = nil
        let body = EventWriter.gone(job: entry.job, atMs: WallClock.nowMs())
        forward(OutboundEvent(kind: .gone, seq: 0, phase: .queued, body: body, for: entry.interest), for: entry)
        wakePollers(of: entry)
    }

    /// No job: whoever has seen it is told, the others wait for it to appear.
    private func settleAbsent(_ entry: JobEntry) {
        for joiner in entry.joiners { settleAbsent(joiner, of: entry) }
        entry.joiners.removeAll { $0.isSettled }
    }

    private func settleAbsent(_ joiner: Joiner, of entry: JobEntry) {
        if joiner.since != nil, joiner.readsBefore == entry.readsSent {
            entry.readsAgain = true
            return
        }
        switch joiner.kind {
        case .watcher(let watcher, let link):
            if joiner.since != nil {
                joiner.isSettled = true
                put(.refuse(watcher, .gone), on: link)
            } else if joiner.deadline == nil {
                joiner.deadline = eventLoop.now + limits.watchUnknown
                parked.append((entry, joiner))
            }
        case .poll(let waiter):
            joiner.isSettled = settleAbsent(waiter, hasCursor: joiner.since != nil)
        }
    }

    // MARK: Milestones

    /// - Parameters:
    ///   - after: From where the feed needs them, nil when it does not.
    ///   - upTo: The newest seq known, when it is not yet the feed's.
    private func readMilestonesOrOpen(_ entry: JobEntry, after: Int?, upTo: Int = 0) {
        let newest = max(entry.feed.seq, upTo)
        var lowest = after
        for joiner in entry.joiners where !joiner.isDenied {
            guard let since = joiner.since, since < newest, let owner = entry.owner, joiner.principal.mayView(owner) else { continue }
            lowest = min(lowest ?? since, since)
        }
        guard let lowest else {
            openJoiners(of: entry, milestones: [], after: nil)
            finishRead(entry)
            return
        }
        entry.isCapturing = true
        entry.captured = []
        milestoneQueue.append((entry, lowest))
        sendMilestoneReads()
    }

    private func sendMilestoneReads() {
        while milestoneReadsInFlight < limits.concurrentMilestoneReads, let (entry, after) = milestoneQueue.popFirst() {
            guard !entry.isRemoved, let source else { continue }
            milestoneReadsInFlight += 1
            source.milestones(entry.job, after: after).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
                milestoneReadsInFlight -= 1
                entry.isCapturing = false
                if !entry.isRemoved {
                    switch result {
                    case .success(let list): didRead(entry, list, after: after)
                    case .failure: readFailed([entry])
                    }
                }
                flush()
                sendMilestoneReads()
            }
        }
    }

    private func didRead(_ entry: JobEntry, _ list: [Milestone], after: Int) {
        let listed = list.map { OutboundEvent(milestone: $0, for: entry.interest) }
        let known = entry.feed.seq
        let (missing, again) = entry.feed.fill(milestones: listed)
        for event in missing where event.seq > known { forward(event, for: entry) }
        // The list ends where it was read; what passed since then was captured.
        let last = listed.last?.seq ?? after
        let all = listed + entry.captured.filter { $0.seq > last }
        entry.captured = []
        openJoiners(of: entry, milestones: all.filter { $0.seq <= entry.feed.seq }, after: after)
        for event in again { receive(event, for: entry) }
        finishRead(entry)
    }

    /// - Parameter after: From where `milestones` is complete; nil: it is not.
    private func openJoiners(of entry: JobEntry, milestones: [OutboundEvent], after: Int?) {
        guard !entry.joiners.isEmpty, let newest = entry.feed.newest, let owner = entry.owner else { return }
        for joiner in entry.joiners where !joiner.isDenied {
            guard joiner.principal.mayView(owner) else {
                joiner.isDenied = true
                settleAbsent(joiner, of: entry)
                continue
            }
            if isCovered(joiner, entry, newest: newest, after: after) {
                open(joiner, of: entry, newest: newest, milestones: milestones)
            } else {
                entry.readsAgain = true
            }
        }
        entry.joiners.removeAll { $0.isSettled }
    }

    /// This read has all that the joiner is owed.
    private func isCovered(_ joiner: Joiner, _ entry: JobEntry, newest: OutboundEvent, after: Int?) -> Bool {
        guard let since = joiner.since else { return true }
        if since == newest.seq { return true }
        // Ahead of the read: history went back, unless the read is the older of the two.
        if since > newest.seq { return joiner.readsBefore < entry.readsSent }
        return after.map { since >= $0 } ?? false
    }

    private func finishRead(_ entry: JobEntry) {
        entry.reading = .idle
        if entry.readsAgain || entry.feed.isBroken || (entry.feed.hasUnexplained && !entry.isIdle) { requestRead(entry) }
        lingerIfIdle(entry)
    }

    // MARK: Failures

    private func readSucceeded() {
        guard failures > 0 else { return }
        failures = 0
        updateDegraded()
    }

    private func readFailed(_ batch: [JobEntry]) {
        metrics.failedReads.increment(by: batch.count)
        failures += 1
        updateDegraded()
        for entry in batch {
            entry.reading = .idle
            entry.isCapturing = false
            retries.append(entry)
        }
        guard !isRetryScheduled else { return }
        isRetryScheduled = true
        let doubled = limits.retryDelay.nanoseconds << Int64(min(failures - 1, 10))
        let delay = min(doubled, limits.maximumRetryDelay.nanoseconds)
        eventLoop.scheduleTask(in: .nanoseconds(Int64.random(in: delay / 2...delay))) { [self] in
            isRetryScheduled = false
            let again = retries
            retries = []
            for entry in again { requestRead(entry) }
        }
    }
}
