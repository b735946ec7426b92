import ProgressCore
import TestSupport
import Testing

@testable import headway

struct BarRendererTests {
    private let stages = ["image_loading", "image_preprocessing", "shape_generation", "texture_synthesis", "mesh_export"]

    private func view(percent: Double = 61.3, stage: String? = "shape_generation") -> JobView {
        var view = JobView(job: "0199-abc", stages: stages)
        var event = JobEvent.state(3, percent: percent, stage: stage)
        event.step = 21
        event.steps = 50
        event.etaMs = 40_000
        view.link = .live
        _ = view.apply(event, at: .zero)
        return view
    }

    private func texts(_ views: [JobView], width: Int, height: Int = 50, now: Duration = .zero) -> [String] {
        var views = views
        return BarRenderer().lines(for: &views, width: width, height: height, now: now).map { $0.text(hasColour: false) }
    }

    @Test func aWideTerminalShowsEverything() {
        let lines = texts([view()], width: 120)
        #expect(lines[0].hasPrefix("0199-abc ████"))
        #expect(lines[0].hasSuffix(" 61.3 %  GENERATING  about 40 s"))
        #expect(
            lines[1]
                == "  ✓ image_loading  ✓ image_preprocessing  ▸ shape_generation 21/50  · texture_synthesis  · mesh_export"
        )
    }

    @Test func aNarrowTerminalShowsTheCurrentStage() {
        let lines = texts([view()], width: 60)
        #expect(lines[1] == "  ✓ 2 done  ▸ shape_generation 21/50  · 2 more")
    }

    @Test func aGroupShowsItsChildren() throws {
        var view = JobView(job: "book", stages: ["never", "shown"])
        let json =
            #"{"job":"book","seq":7,"type":"progress","phase":"GENERATING","percent":52.5,"children":{"expected":5,"waiting":1,"running":1,"#
            + #""complete":2,"failed":1,"cancelled":0},"attempt":1,"at":1}"#
        _ = view.apply(try #require(JobEvent.parse(json)), at: .zero)
        let lines = texts([view], width: 100)
        #expect(lines[0].contains(" 52.5 %  GENERATING"))
        #expect(lines[1] == "  2 of 5 done, 1 running, 1 waiting, 1 failed")
        var plain = PlainLines(namesJobs: false)
        let line = plain.line(for: view, change: .milestone, now: .zero)
        #expect(line == "GENERATING  52.5 %  2 of 5 done, 1 running, 1 waiting, 1 failed")
    }

    @Test func aHeldJobSaysThatItsOwnersLimitHoldsIt() throws {
        var view = JobView(job: "J")
        _ = view.apply(.state(1, .queued, type: "phase"), at: .zero)
        _ = view.apply(
            try #require(JobEvent.parse(#"{"job":"J","type":"queue","held_by":"tenant_limit","own_ahead":2,"at":1}"#)),
            at: .zero
        )
        #expect(ProgressText.phase(of: view) == "QUEUED, at your limit of running jobs, 2 of yours first")
        _ = view.apply(try #require(JobEvent.parse(#"{"job":"J","type":"queue","queue_position":3,"queue_ahead":3,"at":1}"#)), at: .zero)
        #expect(ProgressText.phase(of: view) == "QUEUED, 3 ahead")
        _ = view.apply(.state(2, percent: 1), at: .zero)
        #expect(ProgressText.phase(of: view) == "GENERATING")
    }

    @Test func theEstimateAgesBetweenEvents() {
        #expect(texts([view()], width: 120, now: .seconds(30))[0].hasSuffix("about 10 s"))
        #expect(texts([view()], width: 120, now: .seconds(300))[0].hasSuffix("about 1 s"))
    }

    /// However long the words beside them are.
    @Test func barsOfSeveralJobsAreOfOneLength() {
        var second = view()
        var event = JobEvent.state(9, .failed, percent: 61, type: "failed")
        event.error = .init(code: "out_of_memory", message: "the card has 8 GB", recoverable: false)
        _ = second.apply(event, at: .zero)
        let lines = texts([view(), second], width: 120).filter { $0.contains("%") }
        #expect(lines.count == 2)
        #expect(Set(lines.map { $0.prefix { $0 != "%" }.count }).count == 1, "\(lines)")
    }

    @Test func endsAreToldInWords() {
        var done = view()
        var event = JobEvent.state(9, .complete, percent: 100, type: "complete")
        event.durationMs = 12_300
        _ = done.apply(event, at: .zero)
        let lines = texts([done], width: 120)
        #expect(lines[0].hasSuffix("100.0 %  ✓ COMPLETE in 12 s"))
        #expect(lines[1].filter { $0 == "✓" }.count == 5)

        var failed = view()
        var end = JobEvent.state(9, .failed, percent: 61, type: "failed")
        end.error = .init(code: "generator_failed", message: "exit 3\u{1B}[2J", recoverable: false)
        _ = failed.apply(end, at: .zero)
        #expect(texts([failed], width: 120)[0].contains("✗ FAILED: generator_failed: exit 3?[2J"))
    }

    /// No line is ever wider than the terminal, whatever the names, messages and widths.
    @Test func noLineIsWiderThanTheTerminal() {
        var generator = SeededGenerator(seed: 11)
        let words = ["shape_generation", "é", "漢字の段階", "a", "🎨🎨", "e\u{301}e\u{301}", "\u{1B}[31m", "x\ny", "\u{202E}abc", ""]
        for round in 0..<6000 {
            let width = Int.random(in: 1...220, using: &generator)
            let height = Int.random(in: 1...40, using: &generator)
            var views: [JobView] = []
            for _ in 0..<Int.random(in: 1...8, using: &generator) {
                var name = ""
                for _ in 0..<Int.random(in: 1...4, using: &generator) { name += words.randomElement(using: &generator) ?? "" }
                var view = JobView(job: name, stages: (0..<Int.random(in: 0...6, using: &generator)).map { "\($0)\(words[$0])" })
                view.link = Bool.random(using: &generator) ? .live : .connecting
                var event = JobEvent.state(
                    1,
                    Phase.allCases.randomElement(using: &generator) ?? .queued,
                    percent: .random(in: -20...120, using: &generator),
                    speed: .random(in: 0...5, using: &generator),
                    stage: words.randomElement(using: &generator)
                )
                event.step = Int.random(in: 0...1_000_000, using: &generator)
                event.steps = Int.random(in: 0...1_000_000, using: &generator)
                event.etaMs = Int.random(in: 0...100_000_000, using: &generator)
                event.stalled = Bool.random(using: &generator)
                event.error = .init(code: name, message: name, recoverable: nil)
                if Bool.random(using: &generator) { _ = view.apply(event, at: .zero) }
                views.append(view)
            }
            let lines = BarRenderer().lines(for: &views, width: width, height: height, now: .seconds(3))
            #expect(lines.count <= max(height, 2), "round \(round)")
            for line in lines {
                let text = line.text(hasColour: false)
                #expect(line.width == TextWidth.columns(of: text))
                #expect(line.width <= max(width, Limits.narrowestTerminal), "round \(round), width \(width): \(text)")
                #expect(!text.unicodeScalars.contains { $0.value < 32 || (127..<160).contains($0.value) })
            }
        }
    }

    @Test func coloursDoNotChangeTheText() {
        var views = [view()]
        for line in BarRenderer().lines(for: &views, width: 100, height: 10, now: .zero) {
            let coloured = line.text(hasColour: true)
            #expect(coloured.contains("\u{1B}["))
            #expect(coloured.replacing(/\u{1B}\[[0-9]*m/, with: "") == line.text(hasColour: false))
        }
    }

    @Test func theTerminalDecidesTheStyle() {
        let style = { (terminal: Bool, environment: [String: String]) in TerminalStyle(isTerminal: terminal, environment: environment) }
        #expect(style(true, ["LANG": "C.UTF-8"]).hasColour && style(true, ["LANG": "C.UTF-8"]).isUnicode)
        #expect(!style(true, ["NO_COLOR": "1"]).hasColour && style(true, ["NO_COLOR": "1"]).isLive)
        #expect(style(true, ["NO_COLOR": ""]).hasColour)
        #expect(!style(true, ["TERM": "dumb"]).isLive)
        #expect(!style(false, [:]).isLive && !style(false, [:]).hasColour && style(false, [:]).isUnicode)
        #expect(!style(true, ["LC_ALL": "C", "LANG": "C.UTF-8"]).isUnicode)
    }
}

struct ProgressTextTests {
    private func eta(_ eta: Int?, low: Int? = nil, high: Int? = nil, age: Int = 0) -> String? {
        var event = JobEvent(type: "progress")
        event.etaMs = eta
        event.etaLowMs = low
        event.etaHighMs = high
        return ProgressText.eta(of: event, ageMs: age)
    }

    @Test func narrowIntervalsAreOneNumber() {
        #expect(eta(40_000, low: 36_000, high: 44_000) == "about 40 s")
        #expect(eta(41_200) == "about 40 s")
        #expect(eta(3_000) == "about 3 s")
        #expect(eta(0) == "about 1 s")
        #expect(eta(184_000) == "about 3 min")
        #expect(eta(4_000_000) == "about 1 h 7 min")
        #expect(eta(nil) == nil)
    }

    @Test func wideIntervalsAreTwo() {
        #expect(eta(90_000, low: 60_000, high: 120_000) == "1–2 min")
        #expect(eta(60_000, low: 31_000, high: 88_000) == "30–90 s")
        #expect(eta(7_200_000, low: 3_600_000, high: 14_000_000) == "1–4 h")
        #expect(eta(90_000, low: 60_000, high: 180_000, age: 30_000) == "up to 3 min")
    }

    @Test func stalledAndEstimatingSaySo() {
        var event = JobEvent(type: "progress")
        event.etaMs = 5
        event.estimating = true
        #expect(ProgressText.eta(of: event, ageMs: 0) == "estimating")
        event.stalled = true
        #expect(ProgressText.eta(of: event, ageMs: 0) == "stalled")
    }

    @Test func percentNeverRoundsUpToTheEnd() {
        #expect(ProgressText.percent(99.99) == "99.9 %")
        #expect(ProgressText.percent(100) == "100.0 %")
        #expect(ProgressText.percent(-3) == "0.0 %" && ProgressText.percent(300) == "100.0 %")
    }

    @Test func randomEstimatesAlwaysReadWell() {
        var generator = SeededGenerator(seed: 2)
        for _ in 0..<20_000 {
            let low = Int.random(in: -1000...500_000, using: &generator)
            let text = eta(
                Int.random(in: -1000...10_000_000, using: &generator),
                low: low,
                high: low + Int.random(in: -5...5_000_000, using: &generator)
            )
            #expect(text.map { $0.hasPrefix("about ") || $0.hasPrefix("up to ") || $0.contains("–") } == true)
        }
    }
}

struct PlainLinesTests {
    @Test func milestonesAlwaysAndStatesOnceASecond() {
        var lines = PlainLines(namesJobs: false)
        var view = JobView(job: "J")
        var printed: [String] = []
        func feed(_ event: JobEvent, at milliseconds: Int) {
            let now = Duration.milliseconds(milliseconds)
            let change = view.apply(event, at: now)
            if let line = lines.line(for: view, change: change, now: now) { printed.append(line) }
        }
        feed(.state(1, .queued, type: "phase"), at: 0)
        feed(.state(2, .generating, percent: 10, stage: "a"), at: 10)
        feed(.state(3, .generating, percent: 11, stage: "a"), at: 20)
        feed(.state(4, .generating, percent: 12, stage: "a"), at: 900)
        feed(.state(5, .generating, percent: 13, stage: "a"), at: 1100)
        feed(.state(6, .generating, percent: 14, stage: "b"), at: 1110)
        feed(.state(7, .complete, percent: 100, type: "complete"), at: 1120)
        #expect(
            printed == ["QUEUED", "GENERATING  10.0 %  a", "GENERATING  13.0 %  a", "GENERATING  14.0 %  b", "COMPLETE"]
        )
    }
}
