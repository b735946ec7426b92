import ProgressCore
import TestSupport
import Testing

@testable import headway

extension JobEvent {
    /// An event as a test needs it.
    static func state(
        _ seq: Int,
        _ phase: Phase = .generating,
        percent: Double = 0,
        speed: Double? = nil,
        attempt: Int = 1,
        stage: String? = nil,
        type: String = "progress"
    ) -> JobEvent {
        var event = JobEvent(type: type)
        event.job = "J"
        event.seq = seq
        event.phase = phase
        event.percent = percent
        event.percentPerS = speed
        event.attempt = attempt
        event.stage = stage
        return event
    }
}

struct JobViewTests {
    @Test func olderAndRepeatedEventsChangeNothing() {
        var view = JobView(job: "J")
        #expect(view.apply(.state(5, percent: 50), at: .zero) == .milestone)
        #expect(view.apply(.state(6, percent: 60), at: .zero) == .state)
        #expect(view.apply(.state(6, percent: 99), at: .zero) == .none)
        #expect(view.apply(.state(3, percent: 10), at: .zero) == .none)
        #expect(view.event?.percent == 60)
    }

    @Test func aResetLowersTheFloor() {
        var view = JobView(job: "J")
        _ = view.apply(.state(9, percent: 80), at: .zero)
        #expect(view.drawnPercent(at: .zero) == 80)
        #expect(view.apply(.state(4, percent: 30, type: "reset"), at: .zero) == .milestone)
        #expect(view.drawnPercent(at: .zero) == 30)
        #expect(view.apply(.state(5, percent: 31), at: .zero) == .state)
    }

    @Test func aResetWithoutANumberAdmitsLowerOnes() {
        var view = JobView(job: "J")
        _ = view.apply(.state(9, percent: 80), at: .zero)
        #expect(view.apply(JobEvent(type: "reset"), at: .zero) == .milestone)
        #expect(view.event?.percent == 80)
        #expect(view.apply(.state(2, percent: 10), at: .zero) == .state)
        #expect(view.event?.percent == 10)
    }

    @Test func theFirstEndStays() {
        var view = JobView(job: "J")
        _ = view.apply(.state(3, .failed, percent: 40, type: "failed"), at: .zero)
        #expect(view.end == .failed)
        #expect(view.apply(.state(4, .complete, percent: 100, type: "complete"), at: .zero) == .none)
        #expect(view.end == .failed)
    }

    @Test func theDrawnBarMovesWithTheSpeedAndStopsAtNineTenths() {
        var view = JobView(job: "J")
        _ = view.apply(.state(1, percent: 50, speed: 2), at: .seconds(10))
        #expect(view.drawnPercent(at: .seconds(10)) == 50)
        #expect(view.drawnPercent(at: .seconds(15)) == 60)
        #expect(view.drawnPercent(at: .seconds(1000)) == 95)
    }

    /// Random events and random moments: never backwards within an attempt, never past nine tenths of the rest, never 100 early.
    @Test func theDrawnBarNeverFallsWithinAnAttempt() {
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<500 {
            var view = JobView(job: "J")
            var now = Duration.zero
            var last = 0.0
            var attempt = 1
            var percent = 0.0
            for seq in 1...40 {
                now += .milliseconds(Int.random(in: 0...5000, using: &generator))
                if Int.random(in: 0..<12, using: &generator) == 0 {
                    attempt += 1
                    percent = 0
                    last = 0
                }
                percent = min(99.9, percent + Double.random(in: 0...8, using: &generator))
                let speed = Bool.random(using: &generator) ? Double.random(in: -1...20, using: &generator) : nil
                _ = view.apply(.state(seq, percent: percent, speed: speed, attempt: attempt), at: now)
                for _ in 0..<3 {
                    now += .milliseconds(Int.random(in: 0...2000, using: &generator))
                    let drawn = view.drawnPercent(at: now)
                    #expect(drawn >= last && drawn >= percent && drawn < 100)
                    last = drawn
                }
            }
            _ = view.apply(.state(100, .complete, percent: 100, attempt: attempt, type: "complete"), at: now)
            #expect(view.drawnPercent(at: now) == 100)
        }
    }

    @Test func queueEventsTellThePlaceUntilTheJobStarts() {
        var view = JobView(job: "J")
        _ = view.apply(.state(1, .queued), at: .zero)
        var queue = JobEvent(type: "queue")
        queue.queueAhead = 3
        #expect(view.apply(queue, at: .zero) == .milestone && view.apply(queue, at: .zero) == .state)
        #expect(ProgressText.phase(of: view) == "QUEUED, 3 ahead" && ProgressText.start(of: view, at: .zero) == nil)
        queue.reason = "no_worker"
        #expect(view.apply(queue, at: .zero) == .milestone)
        #expect(ProgressText.phase(of: view) == "QUEUED, 3 ahead, no worker takes such jobs")
        (queue.reason, queue.etaMs, queue.etaLowMs, queue.etaHighMs) = (nil, 40_000, 38_000, 43_000)
        #expect(view.apply(queue, at: .zero) == .milestone)
        #expect(ProgressText.start(of: view, at: .seconds(10)) == "starts in about 30 s")
        #expect(ProgressText.start(of: view, at: .seconds(41)) == "starts any moment")
        var asked = JobEvent.state(1, .queued)
        asked.heldBy = "tenant_limit"
        #expect(view.apply(asked, at: .zero) == .state, "the same seq, another place")
        #expect(ProgressText.phase(of: view) == "QUEUED, at your limit of running jobs")
        (asked.heldBy, asked.dueAt, asked.at) = (nil, 60_000, 30_000)
        _ = view.apply(asked, at: .zero)
        #expect(ProgressText.phase(of: view) == "QUEUED, due in 30 s")
        _ = view.apply(.state(2, .analyzing), at: .zero)
        #expect(ProgressText.phase(of: view) == "ANALYZING")
    }

    @Test func theWorstEndDecidesTheExitCode() {
        #expect(JobEnd.exitCode(ofWorst: []) == 0)
        #expect(JobEnd.exitCode(ofWorst: [.complete, .complete]) == 0)
        #expect(JobEnd.exitCode(ofWorst: [.complete, .cancelled]) == 3)
        #expect(JobEnd.exitCode(ofWorst: [.cancelled, .failed, .complete]) == 1)
        #expect(JobEnd.exitCode(ofWorst: [.failed, .absent]) == 4)
        #expect(JobEnd.exitCode(ofWorst: [.absent, .linkLost, .failed]) == 5)
        #expect(JobEnd.exitCode(ofWorst: [.linkLost, .refused(.usage("x"))]) == 2)
    }

    @Test func eventsAreReadFromJSON() throws {
        let json = """
            {"job":"J","seq":42,"type":"progress","phase":"GENERATING","phase_percent":52.0,"percent":61.3,"percent_per_s":0.9,\
            "stage":"shape_generation","step":21,"steps":50,"item":1,"items":1,"eta_ms":33000,"eta_low_ms":29000,"eta_high_ms":41000,\
            "attempt":1,"at":1767225600000,"a_new_field":{"x":[1]}}
            """
        let event = try #require(JobEvent.parse(json))
        #expect(event.seq == 42 && event.phase == .generating && event.percent == 61.3 && event.etaHighMs == 41_000 && event.steps == 50)
        #expect(JobEvent.parse("[]") == nil && JobEvent.parse("{}") == nil && JobEvent.parse("") == nil)
    }
}

struct BackoffTests {
    @Test func theWindowDoublesUpToTheCap() {
        var backoff = Backoff()
        var windows: [Duration] = []
        for _ in 0..<8 { windows.append(backoff.next(random: 1)) }
        #expect(windows == [0.5, 1, 2, 4, 8, 10, 10, 10].map { Duration.milliseconds(Int($0 * 1000)) })
        backoff.succeeded()
        #expect(backoff.next(random: 0.5) == .milliseconds(250))
    }

    @Test func theServersSlotIsKeptExactlyOnce() {
        var backoff = Backoff()
        backoff.serverAsked(milliseconds: 7300)
        #expect(backoff.next(random: 0) == .milliseconds(7300))
        #expect(backoff.next(random: 0) == .zero)
        backoff.serverAsked(milliseconds: Int.max)
        #expect(backoff.next(random: 0.3) == .seconds(300))
        backoff.serverAsked(milliseconds: -5)
        #expect(backoff.next(random: 0.3) == .zero)
    }
}

struct PollAnswerTests {
    @Test func thePartsAreTheTextTheyWereSentAs() throws {
        let state = #"{"job":"J","seq":4,"s":"a\"}]{[,","n":[1,{"x":[]}]}"#
        let answer = try #require(PollAnswer(#" { "state" : \#(state) , "events":[{"seq":2} , {"seq":3,"t":"]"}], "other": -1.5e3 } "#))
        #expect(answer.state == state)
        #expect(answer.events == [#"{"seq":2}"#, #"{"seq":3,"t":"]"}"#])
        #expect(PollAnswer("{}")?.events == [])
        #expect(PollAnswer(#"{"events":[]}"#)?.events == [])
    }

    @Test func brokenAnswersAreRefused() {
        for text in ["", "[", "{", #"{"a"}"#, #"{"a":}"#, #"{"events":5}"#, #"{"a":"x}"#, #"{"a":[1}"#, "null", #"{"state":{"#] {
            #expect(PollAnswer(text) == nil, "\(text)")
        }
        var generator = SeededGenerator(seed: 5)
        let pieces = Array(#"{}[],:"\ab1 "#)
        for _ in 0..<20_000 {
            _ = PollAnswer(
                String((0..<Int.random(in: 0...14, using: &generator)).map { _ in pieces.randomElement(using: &generator) ?? " " })
            )
        }
    }
}
