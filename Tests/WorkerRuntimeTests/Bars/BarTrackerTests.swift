import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// What bars mean for a job, bar by bar.
struct BarTrackerTests {
    private static let generic = Pipeline(name: "generic", stages: [])

    /// Reads lines that each end with `\r`, and gives what was told after each.
    private func follow(_ lines: [String], pipeline: Pipeline = generic) -> [ProgressUpdate?] {
        var tracker = BarTracker(BarNames(pipeline))
        return lines.map { line in
            var update: ProgressUpdate?
            for piece in Array(line.utf8).withUnsafeBytes({ TerminalText.pieces(of: $0) }) {
                if piece.isBlank {
                    tracker.wipe(position: piece.linesUp)
                } else if let bar = BarLine(piece.text) {
                    update = tracker.take(bar, text: piece.text, position: piece.linesUp).update ?? update
                }
            }
            return update
        }
    }

    private func bar(_ title: String, _ n: Int, _ total: Int, seconds: Int = 1, position: Int = 0) -> String {
        let percent = String(100 * n / total)
        let padded = String(repeating: " ", count: max(0, 3 - percent.count)) + percent
        let clock = "00:" + (seconds < 10 ? "0" : "") + "\(seconds)"
        let ups = String(repeating: "\u{1b}[A", count: position)
        return (title.isEmpty ? "" : title + ": ") + "\(padded)%|####      | \(n)/\(total) [\(clock)<00:01,  1.00it/s]" + ups
    }

    @Test func anEnclosingBarIsRefinedByTheOneWithin() {
        let updates = follow([
            bar("Images", 0, 4), bar("Steps", 0, 10, position: 1), bar("Steps", 5, 10, position: 1), bar("Steps", 10, 10, position: 1),
            bar("Images", 1, 4), bar("Steps", 0, 10, seconds: 0, position: 1), bar("Steps", 5, 10, position: 1),
        ])
        #expect(updates.compactMap { $0?.stage }.allSatisfy { $0 == "Images" })
        #expect(updates[0] == ProgressUpdate(stage: "Images", step: 0, steps: 4))
        #expect(updates[2] == ProgressUpdate(stage: "Images", step: 5, steps: 10, percent: 12.5))
        #expect(updates[3] == ProgressUpdate(stage: "Images", step: 10, steps: 10, percent: 25))
        #expect(updates[4] == ProgressUpdate(stage: "Images", step: 1, steps: 4))
        #expect(updates[6] == ProgressUpdate(stage: "Images", step: 5, steps: 10, percent: 37.5))
    }

    @Test func severalBarsWithinOneTickDoNotCount() {
        let updates = follow([
            bar("Images", 0, 4), bar("Sampling", 10, 10, position: 1), bar("Decoding", 0, 3, seconds: 0, position: 1),
            bar("Decoding", 3, 3, position: 1), bar("Images", 1, 4), bar("Sampling", 5, 10, seconds: 0, position: 1),
        ])
        // Once it was taken for the whole tick; from then on only ticks count.
        #expect(updates[1]?.percent == 25)
        #expect(updates[2] == ProgressUpdate(stage: "Images", step: 0, steps: 4))
        #expect(updates[3] == nil)
        #expect(updates[4] == ProgressUpdate(stage: "Images", step: 1, steps: 4))
        #expect(updates[5] == nil)
    }

    @Test func withinABarWithoutATotalTheInnerOneCounts() {
        let updates = follow([
            "Files: 3it [00:03,  1.00it/s]", bar("Rows", 2, 8, position: 1), "Files: 4it [00:04,  1.00it/s]",
            bar("Rows", 1, 8, seconds: 0, position: 1),
        ])
        #expect(updates[0] == ProgressUpdate(stage: "Files", step: 3))
        #expect(updates[1] == ProgressUpdate(stage: "Rows", step: 2, steps: 8))
        #expect(updates[3] == ProgressUpdate(stage: "Rows", step: 1, steps: 8))
    }

    @Test func anAbandonedBarIsForgotten() {
        let updates = follow([bar("Search", 5, 20), bar("Render", 0, 4, seconds: 0), bar("Render", 2, 4)])
        #expect(updates.map { $0?.stage } == ["Search", "Render", "Render"])
        #expect(updates[2] == ProgressUpdate(stage: "Render", step: 2, steps: 4))
    }

    @Test func barsThatTakeTurnsOnOneLineAreNested() {
        let updates = follow([
            bar("outer", 0, 3, seconds: 0), bar("inner", 0, 4, seconds: 0), bar("inner", 4, 4), bar("outer", 1, 3),
            bar("inner", 0, 4, seconds: 0),
            bar("inner", 2, 4), bar("outer", 2, 3, seconds: 2),
        ])
        #expect(updates[3] == ProgressUpdate(stage: "outer", step: 1, steps: 3))
        #expect(updates[5]?.stage == "outer")
        #expect(updates[6] == ProgressUpdate(stage: "outer", step: 2, steps: 3))
    }

    @Test func roundsInATitleCount() {
        let updates = follow([bar("Epoch 1/4", 2, 4), bar("Epoch 1/4", 4, 4), bar("Epoch 2/4", 0, 4, seconds: 0), bar("Epoch 2/4", 2, 4)])
        #expect(updates.compactMap { $0?.percent } == [12.5, 25, 25, 37.5])
        #expect(updates.allSatisfy { $0?.stage == "Epoch" })
        #expect(updates.compactMap { $0?.message } == ["Epoch 1/4", "Epoch 1/4", "Epoch 2/4", "Epoch 2/4"])
    }

    @Test func aTitleThatChangesIsTheMessage() {
        let updates = follow([bar("a.png", 0, 3, seconds: 0), bar("a.png", 1, 3), bar("b.png", 2, 3), bar("loss 0.3", 3, 3, seconds: 2)])
        #expect(updates.map { $0?.stage } == ["a.png", "a.png", "a.png", "a.png"])
        #expect(updates.map { $0?.message } == [nil, nil, "b.png", "loss 0.3"])
    }

    @Test func aTitleThatNamesAStageIsThatStage() {
        let pipeline = Pipeline(
            name: "p",
            stages: [
                .init(name: "shape_generation", phase: .generating, weight: 0.5),
                .init(name: "export", phase: .postProcessing, weight: 0.5, bars: [.init(title: "Writing*", from: 50, to: 100)]),
            ]
        )
        let updates = follow(
            [
                bar("Shape Generation", 1, 2), bar("Writing out.glb", 1, 4), bar("Something else", 1, 4, seconds: 0),
                bar("", 1, 5, seconds: 0),
            ],
            pipeline: pipeline
        )
        #expect(updates[0] == ProgressUpdate(stage: "shape_generation", step: 1, steps: 2))
        #expect(updates[1] == ProgressUpdate(stage: "export", step: 1, steps: 4, percent: 62.5))
        #expect(updates[2] == ProgressUpdate(stage: "Something else", step: 1, steps: 4))
        #expect(updates[3] == ProgressUpdate(step: 1, steps: 5))
    }

    @Test func bytesAndHugeCountsAreShares() {
        let updates = follow(["model.bin:  50%|#####     | 1.70G/3.40G [00:05<00:05, 340MB/s]", bar("rows", 3_000_000_000, 4_000_000_000)])
        #expect(updates[0] == ProgressUpdate(stage: "model.bin", percent: 50))
        #expect(updates[1] == ProgressUpdate(stage: "rows", percent: 75))
    }

    @Test func aCountWithoutATotalIsNoStepOfAnother() {
        let updates = follow([bar("", 20, 20), "3it [00:03,  1.00it/s]"])
        #expect(updates[0] == ProgressUpdate(step: 20, steps: 20))
        #expect(updates[1] == ProgressUpdate())
    }

    @Test func aBarThatPassesItsTotalIsDone() {
        let updates = follow([bar("x", 19, 20), "x: 60it [00:03, 20.00it/s]"])
        #expect(updates[1] == ProgressUpdate(stage: "x", step: 20, steps: 20))
    }

    @Test func aRedrawnBarIsNoNews() {
        let updates = follow([bar("x", 5, 10), bar("x", 5, 10, seconds: 3), bar("x", 10, 10, seconds: 4), bar("x", 10, 10, seconds: 4)])
        #expect(updates.map { $0 != nil } == [true, false, true, false])
    }

    @Test func aBarIsLoggedOnceWhenItEnds() {
        var tracker = BarTracker(BarNames(Self.generic))
        var ended: [String] = []
        for text in [bar("a", 1, 2), bar("a", 2, 2), bar("a", 2, 2), bar("b", 1, 9), bar("c", 1, 9, seconds: 0)] {
            guard let line = BarLine(Array(text.utf8)) else { continue }
            ended += tracker.take(line, text: Array(text.utf8), position: 0).ended.map { String(decoding: $0, as: UTF8.self) }
        }
        ended += tracker.finish().map { String(decoding: $0, as: UTF8.self) }
        #expect(ended.map { $0.prefix(1) } == ["a", "b", "c"])
    }

    @Test func thousandsOfBarsCostNothingLasting() {
        var tracker = BarTracker(BarNames(Self.generic))
        var logged = 0
        for index in 0..<5000 {
            let text = bar(
                "title \(Character(Unicode.Scalar(UInt8(97 + index % 26))))\(index % 7)x",
                1,
                9,
                seconds: 0,
                position: index % 25
            )
            let pieces = Array(text.utf8).withUnsafeBytes { TerminalText.pieces(of: $0) }
            guard let piece = pieces.first, let line = BarLine(piece.text) else { continue }
            logged += tracker.take(line, text: piece.text, position: piece.linesUp).ended.count
        }
        #expect(tracker.finish().count <= WorkerLimits.bars)
        #expect(logged < 1000)
    }

    // MARK: With the rest of the output

    private func read(_ chunks: [(GeneratorOutput.Stream?, String)], pipeline: Pipeline = generic, readsBars: Bool = true) -> EventLog {
        let log = EventLog()
        var output = GeneratorOutput(events: log.events, pipeline: pipeline, readsBars: readsBars, atMs: 0)
        for (stream, text) in chunks {
            Array(text.utf8).withUnsafeBytes { bytes in
                if let stream { output.readLog(bytes, from: stream, atMs: 1) } else { output.readProgress(bytes, atMs: 1) }
            }
        }
        output.finish(atMs: 2)
        return log
    }

    @Test func whatAScriptSaysItselfEndsTheReadingOfBars() {
        let log = read([
            (.stderr, bar("Sampling", 3, 9) + "\r"), (nil, "{\"stage\":\"making\",\"step\":1,\"steps\":4}\n"),
            (.stderr, bar("Sampling", 9, 9) + "\r\n"),
            (nil, "{\"step\":2}\n"),
        ])
        #expect(log.updates.map(\.stage) == ["Sampling", "making", nil])
        #expect(log.lines.count == 1, "a bar stays out of the log all the same")
    }

    @Test func withoutReadingBarsTheyAreLogLines() {
        let log = read([(.stderr, bar("Sampling", 3, 9) + "\r" + bar("Sampling", 4, 9) + "\n")], readsBars: false)
        #expect(log.updates.isEmpty)
        #expect(log.lines.count == 2)
    }

    @Test func patternsOfThePipelineAreTriedFirst() throws {
        let pipeline = Pipeline(
            name: "p",
            stages: [],
            patterns: [
                ProgressPattern(match: try LinePattern("^Epoch (?<step>\\d+)/(?<steps>\\d+)"), stage: "training"),
                ProgressPattern(match: try LinePattern("saving (?<message>\\S+)"), stage: "saving"),
                ProgressPattern(match: try LinePattern("frames: *(?<percent>\\d+)%")),
            ]
        )
        let log = read(
            [
                (.stdout, "hello\nEpoch 3/10\nEpoch 4/10 [x]\nsaving out.bin\n\u{1b}[32mframes: 20%\u{1b}[0m\r"),
                (.stderr, bar("bar", 1, 2) + "\r"),
            ],
            pipeline: pipeline
        )
        #expect(
            log.updates == [
                ProgressUpdate(stage: "training", step: 4, steps: 10), ProgressUpdate(stage: "saving", percent: 20, message: "out.bin"),
                ProgressUpdate(stage: "bar", step: 1, steps: 2),
            ]
        )
        #expect(Array(log.lines.prefix(5)) == ["hello", "Epoch 3/10", "Epoch 4/10 [x]", "saving out.bin", "frames: 20%"])
    }

    @Test func aBarThatIsNotYetEndedIsSeenAtOnce() {
        let log = EventLog()
        var output = GeneratorOutput(events: log.events, pipeline: Self.generic, atMs: 0)
        for (index, text) in ["\r" + bar("x", 1, 9), "\r" + bar("x", 2, 9)].enumerated() {
            Array(text.utf8).withUnsafeBytes { output.readLog($0, from: .stderr, atMs: 1) }
            #expect(log.updates.last?.step == index + 1)
        }
    }

    @Test func theMessageOfAFailureIsNoBar() {
        let log = EventLog()
        var output = GeneratorOutput(events: log.events, pipeline: Self.generic, atMs: 0)
        let text = "RuntimeError: no\n" + bar("x", 1, 9) + "\r\u{1b}[31m  \u{1b}[0m\n"
        Array(text.utf8).withUnsafeBytes { output.readLog($0, from: .stderr, atMs: 1) }
        output.finish(atMs: 2)
        #expect(output.lastError == "RuntimeError: no")
    }
}
