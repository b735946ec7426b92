import ProgressCore
import TestSupport
import Testing

/// A schedule behind a reference: `#expect` cannot capture a value that changes.
private final class Schedule {
    private var schedule: ReportSchedule

    init(policy: ReportPolicy = ReportPolicy()) { schedule = ReportSchedule(policy: policy) }

    func decide(_ state: ProgressState, atMs: Int) -> ReportSchedule.Decision { schedule.decide(state, atMs: atMs) }
    func sent(_ state: ProgressState, atMs: Int) { schedule.sent(state, atMs: atMs) }
}

@Suite struct ReportScheduleTests {
    private static func state(_ percent: Double, stage: String? = "a", step: Int? = nil, speed: Double? = 1) -> ProgressState {
        ProgressState(phase: .generating, percent: percent, percentPerSecond: speed, stage: stage, step: step)
    }

    @Test func theFirstStateGoesAtOnce() {
        #expect(Schedule().decide(Self.state(0), atMs: 5) == .sendNow)
    }

    @Test func aStageChangeGoesAtOnceAndATickWaits() {
        let schedule = Schedule()
        schedule.sent(Self.state(0, step: 1), atMs: 1000)
        #expect(schedule.decide(Self.state(1, step: 2), atMs: 1010) == .wait(untilMs: 1250))
        #expect(schedule.decide(Self.state(1, step: 2), atMs: 1250) == .sendNow)
        #expect(schedule.decide(Self.state(1, stage: "b"), atMs: 1010) == .sendNow)
        var other = Self.state(1)
        other.phase = .postProcessing
        #expect(schedule.decide(other, atMs: 1010) == .sendNow)
    }

    @Test func aBarThatIsDrawnRightIsLeftAlone() {
        let schedule = Schedule()
        schedule.sent(Self.state(10), atMs: 0)
        for now in stride(from: 100, to: 10_000, by: 100) {
            let decision = schedule.decide(Self.state(10 + Double(now) / 1000), atMs: now)
            #expect(decision != .sendNow, "\(now)")
        }
        #expect(schedule.decide(Self.state(20), atMs: 10_000) == .sendNow)
    }

    @Test func aBarThatIsDrawnWrongIsCorrectedOnceASecond() {
        let schedule = Schedule()
        schedule.sent(Self.state(10), atMs: 0)
        #expect(schedule.decide(Self.state(12), atMs: 500) == .wait(untilMs: 1000))
        #expect(schedule.decide(Self.state(12), atMs: 1000) == .sendNow)
        #expect(schedule.decide(Self.state(10), atMs: 1000) == .sendNow)
        #expect(schedule.decide(Self.state(10.6), atMs: 1000) == .wait(untilMs: 2000))
    }

    @Test func aBarOfAnotherSpeedIsCorrectedBeforeItIsFarOff() {
        let schedule = Schedule()
        schedule.sent(Self.state(10, speed: 1), atMs: 0)
        // The estimate says 1.2 a second now; after 2.5 s what is drawn would be off by half a point.
        #expect(schedule.decide(Self.state(10, speed: 1.2), atMs: 0) != .sendNow)
        #expect(schedule.decide(Self.state(11, speed: 1.2), atMs: 1000) != .sendNow)
        #expect(schedule.decide(Self.state(12, speed: 1.2), atMs: 2000) != .sendNow)
        #expect(schedule.decide(Self.state(13, speed: 1.2), atMs: 3000) == .sendNow)
        schedule.sent(Self.state(13, speed: 1.2), atMs: 3000)
        #expect(schedule.decide(Self.state(14.2, speed: 1.2), atMs: 4000) != .sendNow)
    }

    @Test func nothingNewIsNothing() {
        let schedule = Schedule()
        schedule.sent(Self.state(10, speed: 0), atMs: 0)
        #expect(schedule.decide(Self.state(10, speed: 0), atMs: 60_000) == .nothing)
    }

    /// Plays a random job through the schedule as a reporter would, millisecond by millisecond.
    @Test func ratesHoldAndNothingIsLostForLong() {
        for seed in 0..<1500 {
            var random = SeededGenerator(seed)
            let rate = random.pick([0.5, 1.0, 4.0, 10.0, 100.0])
            let policy = ReportPolicy(maxPerSecond: rate)
            let schedule = Schedule(policy: policy)
            var current = Self.state(0, step: 0)
            var sent: [(at: Int, state: ProgressState, isMilestone: Bool)] = []
            var wake = 0
            var waitingSince: Int?
            for now in stride(from: 0, to: 20_000, by: 10) {
                let hasNews = random.chance(20)
                if hasNews {
                    if random.chance(2) { current.stage = random.pick(["a", "b", "c"]) }
                    if random.chance(70) { current.step = (current.step ?? 0) + 1 }
                    current.percent = min(current.percent + .random(in: 0...0.2, using: &random), 99.9)
                    current.percentPerSecond = .random(in: 0...2, using: &random)
                }
                guard hasNews || now >= wake else { continue }
                switch schedule.decide(current, atMs: now) {
                case .sendNow:
                    let isMilestone = sent.last.map { $0.state.stage != current.stage } ?? true
                    schedule.sent(current, atMs: now)
                    sent.append((now, current, isMilestone))
                    waitingSince = nil
                case .wait(let until):
                    #expect(until > now && until <= now + 10_000, "seed \(seed)")
                    wake = until
                    if waitingSince == nil { waitingSince = now }
                case .nothing:
                    wake = .max
                }
                if let since = waitingSince { #expect(now - since <= 12_000, "seed \(seed)") }
            }
            for (earlier, later) in zip(sent, sent.dropFirst()) where !later.isMilestone {
                #expect(Double(later.at - earlier.at) >= 1000 / rate, "seed \(seed)")
            }
            for index in sent.indices where sent[index].isMilestone {
                let within = sent[index...].prefix { $0.at < sent[index].at + 1000 }.count { $0.isMilestone }
                #expect(within <= ProgressLimits.milestonesPerSecond, "seed \(seed)")
            }
        }
    }

    @Test func clientsNeverDrawTheEnd() {
        for seed in 0..<2000 {
            var random = SeededGenerator(seed)
            let state = Self.state(.random(in: 0...99.9, using: &random), speed: .random(in: 0...1e6, using: &random))
            let drawn = ReportSchedule.drawnPercent(state, sinceMs: .random(in: -5...10_000_000, using: &random))
            #expect(drawn >= state.percent && drawn < 100)
        }
    }
}
