import JobStore
import TestSupport
import Testing

@testable import WorkerRuntime

/// How long a worker sleeps, when it looks after the queues, and when it slows down: pure values, thousands of cases.
@Suite(.timeLimit(.minutes(1))) struct PaceTests {
    private var defaults: StoreSettings { StoreSettings() }

    // MARK: Blocking

    @Test func nothingDueBlocksForALeaseAndAQuarter() {
        for seed in 0..<500 {
            var random = SeededGenerator(seed)
            var plan = WaitPlan()
            plan.note("gpu", dueMs: nil)
            let wait = plan.wait(settings: defaults, random: .random(in: 0..<1, using: &random))
            #expect(wait > .seconds(24) && wait <= .seconds(25))
            #expect(plan.wantsReap.isEmpty)
        }
    }

    @Test func theNearestDueDateOfAllQueuesEndsTheBlock() {
        for seed in 0..<500 {
            var random = SeededGenerator(seed)
            var plan = WaitPlan()
            let dues = (0..<Int.random(in: 1...5, using: &random)).map { _ in Int.random(in: 1...100_000, using: &random) }
            for (index, due) in dues.enumerated() { plan.note("q\(index)", dueMs: due) }
            let wait = plan.wait(settings: defaults, random: .random(in: 0..<1, using: &random))
            #expect(wait <= .milliseconds(max(10, dues.min() ?? 0)))
            #expect(plan.wantsReap.isEmpty)
        }
    }

    @Test func whatIsOverdueIsReapedAndDoesNotSpin() {
        var plan = WaitPlan()
        plan.note("a", dueMs: 0)
        plan.note("b", dueMs: 700)
        plan.notePaused("c")
        #expect(plan.wantsReap == ["a", "c"])
        #expect(plan.wait(settings: defaults, random: 0.5) == .milliseconds(500))
        var settings = defaults
        settings.reapInterval = .zero
        #expect(plan.wait(settings: settings, random: 0.5) == .milliseconds(50))
        // A paused queue alone is no reason to hurry.
        var paused = WaitPlan()
        paused.notePaused("c")
        #expect(paused.wait(settings: defaults, random: 0.5) > .seconds(24))
    }

    /// Another worker claims jobs, renews their leases and dies, all at random times; this one sleeps by its plan. It has to find
    /// the lost lease within 1.25 leases of the last sign of life, whatever it knew when it fell asleep.
    @Test func aLostWorkerIsFoundWithinALeaseAndAQuarter() {
        let lease = 20_000
        var latest = 0
        for seed in 0..<4000 {
            var random = SeededGenerator(seed)
            // The other's life: jobs with their claim, and the last heartbeat of each before its death.
            let diesAt = Int.random(in: 1000...120_000, using: &random)
            var jobs: [(claimedAt: Int, endsAt: Int)] = []
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let claimedAt = Int.random(in: 0..<diesAt, using: &random)
                let endsAt = Bool.random(using: &random) ? Int.max : Int.random(in: claimedAt...diesAt, using: &random)
                jobs.append((claimedAt, endsAt))
            }
            guard jobs.contains(where: { $0.endsAt == .max }) else { continue }
            let phase = Int.random(in: 0..<5000, using: &random)
            func lastSign(_ job: (claimedAt: Int, endsAt: Int), at now: Int) -> Int {
                let until = min(now, diesAt)
                return max(job.claimedAt, (until - phase) / 5000 * 5000 + phase)
            }
            var now = Int.random(in: 0..<25_000, using: &random)
            var foundAt: Int?
            while foundAt == nil, now < 400_000 {
                let leases = jobs.filter { $0.claimedAt <= now && $0.endsAt > now }.map { lastSign($0, at: now) + lease }
                if leases.contains(where: { $0 <= now }) {
                    foundAt = now
                    break
                }
                var plan = WaitPlan()
                plan.note("gpu", dueMs: leases.min().map { $0 - now })
                now += plan.wait(settings: defaults, random: .random(in: 0..<1, using: &random)).wholeMilliseconds
            }
            let lost = jobs.filter { $0.endsAt == .max }.map { lastSign($0, at: diesAt) }.min() ?? 0
            let took = (foundAt ?? .max) - lost
            #expect(took <= lease * 5 / 4, "seed \(seed): found after \(took) ms")
            latest = max(latest, took)
        }
        // The bound is a real one: some case comes near it.
        #expect(latest > 24_000)
    }

    // MARK: Reaping

    @Test func aBusyWorkerReapsAllItsQueuesAndAnIdleOneInTurns() {
        for seed in 0..<200 {
            var random = SeededGenerator(seed)
            let chance = Double.random(in: 0..<1, using: &random)
            let queues = (0..<Int.random(in: 1...5, using: &random)).map { "q\($0)" }
            var schedule = ReapSchedule(queues: queues, nowMs: 0) { chance }
            var idle: [String: Int] = [:]
            var now = 0
            while now < 3_600_000 {
                now += schedule.wait(nowMs: now, isBusy: false).wholeMilliseconds
                for queue in schedule.due(nowMs: now, isBusy: false) { idle[queue, default: 0] += 1 }
            }
            // One a minute, however many there are, and none left out; the queue of groups and producers among them.
            let total = idle.values.reduce(0, +)
            #expect((50...70).contains(total))
            for queue in queues + [Keys.heldQueue] { #expect((idle[queue] ?? 0) >= total / (queues.count + 1) - 1) }
            var busy: [String: Int] = [:]
            let end = now + 600_000
            while now < end {
                now += schedule.wait(nowMs: now, isBusy: true).wholeMilliseconds
                for queue in schedule.due(nowMs: now, isBusy: true) { busy[queue, default: 0] += 1 }
            }
            for queue in queues { #expect((busy[queue] ?? 0) >= 50) }
        }
    }

    @Test func aClockThatStoodStillDoesNotMakeItReapTwice() {
        var schedule = ReapSchedule(queues: ["gpu"], nowMs: 0) { 0.5 }
        // Frozen for a day: one round, not thousands to make up for.
        #expect(!schedule.due(nowMs: 86_400_000, isBusy: true).isEmpty)
        #expect(schedule.due(nowMs: 86_400_001, isBusy: true).isEmpty)
    }

    /// It heard of something due in one queue and then took a job of another: nobody else may know.
    @Test func aWorkerThatBecameBusyLooksAgainWhenItsTimeComes() {
        var schedule = ReapSchedule(queues: ["gpu", "other"], nowMs: 0) { 0.5 }
        schedule.note("gpu", dueAtMs: 3000)
        schedule.note("other", dueAtMs: nil)
        #expect(schedule.wait(nowMs: 0, isBusy: true) == .milliseconds(3000))
        #expect(schedule.wait(nowMs: 0, isBusy: false) == .seconds(10))
        #expect(schedule.due(nowMs: 2999, isBusy: true).isEmpty)
        #expect(schedule.due(nowMs: 3000, isBusy: false).isEmpty)
        #expect(schedule.due(nowMs: 3001, isBusy: true) == ["gpu"])
        #expect(schedule.due(nowMs: 3002, isBusy: true).isEmpty)
        schedule.note("gpu", dueAtMs: 5000)
        schedule.note("gpu", dueAtMs: nil)
        #expect(schedule.due(nowMs: 6000, isBusy: true).isEmpty)
    }

    // MARK: Crash loops

    @Test func jobsThatFailAtOnceSlowTheWorkerDownMoreAndMore() {
        var loop = CrashLoopGuard()
        var now = 0
        for _ in 0..<2 { loop.note(.failedAtOnce(code: "generator_failed"), nowMs: now, random: 0.5) }
        #expect(loop.pause == nil)
        var last = 0
        for round in 0..<30 {
            loop.note(.failedAtOnce(code: "generator_failed"), nowMs: now, random: 0.5)
            guard let pause = loop.pause else {
                Issue.record("no pause in round \(round)")
                return
            }
            let length = pause.untilMs - now
            #expect(length >= last && length <= 30_000)
            #expect(pause.reason == "\(round + 3) jobs in a row failed at once, the last with generator_failed")
            #expect(!pause.isForStart)
            last = length
            now = pause.untilMs
            loop.resume()
        }
        #expect(last > 15_000)
        loop.note(.well, nowMs: now, random: 0.5)
        #expect(loop.pause == nil)
        loop.note(.failedAtOnce(code: "x"), nowMs: now, random: 0.5)
        #expect(loop.pause == nil)
    }

    @Test func jobsThatFailTogetherAreOneStep() {
        var loop = CrashLoopGuard()
        for _ in 0..<64 { loop.note(.failedAtOnce(code: "x"), nowMs: 100, random: 0.999) }
        #expect((loop.pause?.untilMs ?? 0) - 100 <= 500)
        var starts = CrashLoopGuard()
        for _ in 0..<64 { starts.note(.couldNotStart(message: "no such file"), nowMs: 100, random: 0.999) }
        #expect((starts.pause?.untilMs ?? 0) - 100 <= 500)
    }

    @Test func aCommandThatCannotBeStartedSlowsDownAtOnce() {
        var loop = CrashLoopGuard()
        loop.note(.couldNotStart(message: "gone"), nowMs: 0, random: 0)
        #expect(loop.pause == CrashLoopGuard.Pause(untilMs: 250, reason: "gone", isForStart: true))
        loop.note(.couldNotStart(message: "gone"), nowMs: 250, random: 0)
        #expect(loop.pause?.untilMs == 250 + 500)
        // What says nothing changes nothing; a job that ran ends it.
        loop.note(.unclear, nowMs: 300, random: 0)
        #expect(loop.pause?.untilMs == 750)
        loop.note(.well, nowMs: 300, random: 0)
        #expect(loop.pause == nil)
    }

    @Test func pausesStayInBoundsWhateverHappens() {
        for seed in 0..<500 {
            var random = SeededGenerator(seed)
            var loop = CrashLoopGuard()
            var now = 0
            for _ in 0..<100 {
                now += Int.random(in: 0...40_000, using: &random)
                let signs: [HealthSign] = [
                    .well, .unclear, .failedAtOnce(code: "x"), .failedAtOnce(code: "x"), .couldNotStart(message: "m"),
                ]
                loop.note(signs.randomElement(using: &random) ?? .well, nowMs: now, random: .random(in: 0..<1, using: &random))
                if let pause = loop.pause { #expect(pause.untilMs <= now + 30_000) }
                if Bool.random(using: &random) { loop.resume() }
            }
        }
    }
}
