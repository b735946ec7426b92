import JobStore
import NIOCore
import ProgressCore
import Telemetry

/// What a long-poll ends with.
enum PollResult: Sendable {
    /// The present state: its JSON, its head, and the milestones after the caller's cursor.
    case found(state: ByteBuffer, head: JobHead, milestones: [ByteBuffer])
    /// The caller has seen it, and it is not there any more (HTTP 410).
    case gone
    /// HTTP 404
    case notFound
    /// Redis is out of reach, or too many wait (HTTP 503).
    case unavailable
}

/// One long-poll that waits. Owned by the intake's event loop.
final class PollWaiter {
    let after: Int
    let promise: EventLoopPromise<PollResult>
    var isFinished = false
    /// The job was looked for and is not there, or not for this caller.
    var isAbsent = false
    /// Its time is over but nothing was read yet: the first answer is its answer.
    var isOverdue = false

    init(after: Int, promise: EventLoopPromise<PollResult>) {
        self.after = after
        self.promise = promise
    }
}

extension HubIntake {
    /// Waits until the job has something newer than `after`, ends, or `wait` is over. The promise is completed in any case.
    func poll(_ job: JobID, principal: Principal, after: Int, wait: TimeAmount, promise: EventLoopPromise<PollResult>) {
        eventLoop.assertInEventLoop()
        guard pollCount < limits.pollWaiters, let entry = entry(of: job) else {
            metrics.refused.increment()
            promise.succeed(.unavailable)
            return
        }
        pollCount += 1
        let waiter = PollWaiter(after: after, promise: promise)
        let joiner = Joiner(kind: .poll(waiter), since: after > 0 ? after : nil, principal: principal)
        eventLoop.assumeIsolated().scheduleTask(in: min(wait, limits.pollWait)) { [self] in timeOut(waiter, joiner, entry) }
        admit(joiner, to: entry)
        flush()
    }

    /// The job is there and may be seen: answer now, or wait for news.
    func open(_ waiter: PollWaiter, of entry: JobEntry, newest: OutboundEvent) {
        guard !waiter.isFinished else { return }
        if waiter.isOverdue {
            answer([waiter], of: entry)
            return
        }
        entry.pollers.append(waiter)
        if newest.seq != waiter.after || newest.phase.isTerminal { wakePollers(of: entry) }
    }

    /// The job is not there, or not for this caller. Without a cursor it may still appear.
    func settleAbsent(_ waiter: PollWaiter, hasCursor: Bool) -> Bool {
        waiter.isAbsent = true
        if hasCursor {
            finish(waiter, .gone)
        } else if waiter.isOverdue {
            finish(waiter, .notFound)
        }
        return waiter.isFinished
    }

    func finish(_ waiter: PollWaiter, _ result: PollResult) {
        guard !waiter.isFinished else { return }
        waiter.isFinished = true
        pollCount -= 1
        waiter.promise.succeed(result)
    }

    /// Answers everybody for whom there is news, from one read.
    func wakePollers(of entry: JobEntry) {
        let newest = entry.feed.newest
        let ready = entry.pollers.filter { waiter in
            newest.map { $0.seq != waiter.after || $0.phase.isTerminal } ?? true
        }
        guard !ready.isEmpty else { return }
        entry.pollers.removeAll { waiter in ready.contains { $0 === waiter } }
        answer(ready, of: entry)
    }

    private func answer(_ waiters: [PollWaiter], of entry: JobEntry) {
        guard let source else { return }
        let after = waiters.reduce(Int.max) { min($0, $1.after) }
        let job = entry.job
        // The head first: what the list says up to it is whole then, however much is written in between. The caller goes on from it.
        let heads = source.heads([job])
        let answer = heads.flatMap { heads in source.milestones(job, after: after).map { ($0, heads.first ?? nil) } }
        answer.hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
            for waiter in waiters {
                switch result {
                case .failure: finish(waiter, .unavailable)
                case .success((_, nil)): finish(waiter, .gone)
                case .success((let list, let head?)):
                    let since = list.filter { $0.seq > waiter.after && $0.seq <= head.seq }.map(\.body)
                    finish(waiter, .found(state: head.body, head: head, milestones: since))
                }
            }
            lingerIfIdle(entry)
        }
    }

    private func timeOut(_ waiter: PollWaiter, _ joiner: Joiner, _ entry: JobEntry) {
        guard !waiter.isFinished else { return }
        if let index = entry.pollers.firstIndex(where: { $0 === waiter }) {
            entry.pollers.remove(at: index)
            answer([waiter], of: entry)
        } else if waiter.isAbsent {
            settle(joiner, waiter, entry, .notFound)
        } else if !waiter.isOverdue {
            waiter.isOverdue = true
            eventLoop.assumeIsolated().scheduleTask(in: limits.pollGrace) { [self] in settle(joiner, waiter, entry, .unavailable) }
        }
    }

    private func settle(_ joiner: Joiner, _ waiter: PollWaiter, _ entry: JobEntry, _ result: PollResult) {
        joiner.isSettled = true
        entry.joiners.removeAll { $0 === joiner }
        finish(waiter, result)
        lingerIfIdle(entry)
    }
}
