import JobStore

/// How long a worker that found nothing to do may block, and which queues want `reap` before that.
///
/// Nobody wakes a blocked worker when another one dies, so it must look again by itself. While it blocks, the leases it knows of
/// end when `claim` said, or later; one that was taken after it began to block ends a whole lease from then at the earliest. So a
/// block of at most 1.25 leases lets a lost job run again within 1.25 leases of its worker's last sign of life: 25 s by default.
struct WaitPlan {
    private var dueMs: Int?
    private var isOverdue = false
    /// Queues in which something is due that `claim` cannot do itself, and paused ones, in which it does nothing at all.
    private(set) var wantsReap: [String] = []

    /// Notes that a queue was empty, and when the next thing happens there.
    mutating func note(_ queue: String, dueMs: Int?) {
        guard let dueMs else { return }
        self.dueMs = min(self.dueMs ?? dueMs, dueMs)
        if dueMs <= 0 {
            isOverdue = true
            wantsReap.append(queue)
        }
    }

    mutating func notePaused(_ queue: String) { wantsReap.append(queue) }

    /// The time to block. `random` is in 0..<1.
    func wait(settings: StoreSettings, random: Double) -> Duration {
        let longest = min(StoreLimits.longestBlockMs, settings.lease.wholeMilliseconds * 5 / 4)
        // Never the same for all, so that workers that started together do not stay together.
        var wait = longest - Int(Double(longest) * WorkerLimits.blockJitter * random)
        if let dueMs { wait = min(wait, dueMs) }
        // `reap` was just asked for: before its own interval it would not do anything again.
        let shortest = isOverdue ? max(settings.reapInterval, WorkerLimits.shortestOverdueWait) : WorkerLimits.shortestWait
        return .milliseconds(max(wait, shortest.wholeMilliseconds))
    }
}

/// When a worker runs `reap`, beyond what `claim` told it to. Any live process does it; most of the time a gateway has.
struct ReapSchedule {
    private let queues: [String]
    private let random: @Sendable () -> Double
    private var nextRoundMs: Int
    private var nextTurnMs: Int
    private var turn = 0
    /// By queue: when the next thing happens there, as `claim` said last.
    private var dues: [String: Int] = [:]

    /// - Parameter queues: those the worker serves.
    init(queues: [String], nowMs: Int, random: @escaping @Sendable () -> Double) {
        self.queues = queues
        self.random = random
        nextRoundMs = nowMs
        nextTurnMs = nowMs
        nextRoundMs += delay(WorkerLimits.busyReapInterval)
        nextTurnMs += delay(WorkerLimits.idleReapInterval)
    }

    /// Notes what `claim` said of an empty queue: a worker that then takes a job of another queue may be the only one who knows.
    mutating func note(_ queue: String, dueAtMs: Int?) { dues[queue] = dueAtMs }

    /// The queues to look after now. A worker whose slots are all taken claims nothing, so it looks after all of its queues, and
    /// after one in which something is due; one that claims does so with every claim, and then one queue after another is enough,
    /// the one of groups and producers too.
    mutating func due(nowMs: Int, isBusy: Bool) -> [String] {
        var due: [String] = []
        if isBusy {
            due = queues.filter { dues[$0].map { $0 <= nowMs } ?? false }
            for queue in due { dues[queue] = nil }
        }
        if nowMs >= nextRoundMs {
            nextRoundMs = nowMs + delay(WorkerLimits.busyReapInterval)
            if isBusy { due = queues }
        }
        if nowMs >= nextTurnMs {
            nextTurnMs = nowMs + delay(WorkerLimits.idleReapInterval)
            let all = queues + [Keys.heldQueue]
            let queue = all[turn % all.count]
            turn += 1
            if !due.contains(queue) { due.append(queue) }
        }
        return due
    }

    func wait(nowMs: Int, isBusy: Bool) -> Duration {
        var next = min(nextRoundMs, nextTurnMs)
        if isBusy, let due = dues.values.min() { next = min(next, due) }
        return .milliseconds(max(1, next - nowMs))
    }

    /// A tenth more or less, so that workers that started together do not stay together.
    private func delay(_ time: Duration) -> Int { Int(Double(time.wholeMilliseconds) * (0.9 + 0.2 * random())) }
}
