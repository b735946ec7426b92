import Glibc
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// Output of real programs, recorded byte by byte (`Tests/Fixtures/bars`, made by the scripts beside it), read in random chunks.
struct RecordedBarsTests {
    /// What a recording is expected to say, however it is cut.
    struct Expectation: Sendable, CustomStringConvertible {
        let file: String
        /// Stages in order, nil for bars without a title.
        let stages: [String?]
        /// The last update.
        let last: ProgressUpdate
        var pipeline = Pipeline(name: "generic", stages: [])
        /// Lines that are kept for the log, in order; nil: not looked at.
        var log: [String]?

        var description: String { file }
    }

    static let recordings: [Expectation] = [
        Expectation(file: "nested", stages: ["Images"], last: ProgressUpdate(stage: "Images", step: 3, steps: 3)),
        Expectation(file: "nested_leave", stages: [nil], last: ProgressUpdate(step: 3, steps: 3)),
        Expectation(file: "same_line", stages: ["outer", "inner", "outer"], last: ProgressUpdate(stage: "outer", step: 3, steps: 3)),
        Expectation(
            file: "broken",
            stages: ["Search", "Render"],
            last: ProgressUpdate(stage: "Render", step: 4, steps: 4)
        ),
        Expectation(
            file: "write",
            stages: ["Work"],
            last: ProgressUpdate(stage: "Work", step: 4, steps: 4),
            log: ["note 0", "note 1", "note 2", "printed", "note 3"]
        ),
        Expectation(
            file: "retitled",
            stages: [nil, "a.png"],
            last: ProgressUpdate(stage: "a.png", step: 4, steps: 4, message: "d.png")
        ),
        Expectation(
            file: "threads",
            stages: ["Fetching files"],
            last: ProgressUpdate(stage: "Fetching files", step: 6, steps: 6)
        ),
        Expectation(
            file: "hunyuan",
            stages: ["Loading pipeline components", "Diffusion Sampling", "Hierarchical Volume Decoding"],
            last: ProgressUpdate(stage: "Hierarchical Volume Decoding", step: 6, steps: 6)
        ),
        // 60 to 80 percent of the stage.
        Expectation(
            file: "hunyuan",
            stages: ["Loading pipeline components", "shape"],
            last: ProgressUpdate(stage: "shape", step: 6, steps: 6, percent: 80),
            pipeline: Pipeline(
                name: "hunyuan3d",
                stages: [
                    .init(name: "image", phase: .analyzing, weight: 0.2),
                    .init(
                        name: "shape",
                        phase: .generating,
                        weight: 0.8,
                        bars: [
                            .init(title: "Diffusion Sampling", to: 60),
                            .init(title: "Hierarchical*", from: 60, to: 80),
                        ]
                    ),
                ]
            )
        ),
        Expectation(
            file: "diffusers",
            stages: ["loading", "sampling"],
            last: ProgressUpdate(stage: "sampling", step: 8, steps: 8),
            pipeline: Pipeline(
                name: "diffusers",
                stages: [
                    .init(name: "loading", phase: .analyzing, weight: 0.2, bars: [.init(title: "Loading *")]),
                    .init(name: "sampling", phase: .generating, weight: 0.8, bars: [.init(title: "")]),
                ]
            )
        ),
        Expectation(
            file: "diffusers",
            stages: ["Loading checkpoint shards", "Loading pipeline components", "steps"],
            last: ProgressUpdate(stage: "steps", step: 8, steps: 8)
        ),
        Expectation(
            file: "unknown",
            stages: ["Generating train split"],
            last: ProgressUpdate(stage: "Generating train split", step: 6)
        ),
        Expectation(
            file: "epochs",
            stages: ["Epoch"],
            last: ProgressUpdate(stage: "Epoch", step: 4, steps: 4, percent: 100, message: "Epoch 3/3")
        ),
        Expectation(file: "rich", stages: ["Download", "Extract"], last: ProgressUpdate(stage: "Extract", percent: 100)),
        Expectation(file: "alive", stages: ["Bake"], last: ProgressUpdate(stage: "Bake", step: 10, steps: 10)),
        Expectation(file: "click", stages: ["Convert"], last: ProgressUpdate(stage: "Convert", percent: 100)),
        Expectation(file: "progressbar2", stages: [nil], last: ProgressUpdate(percent: 100)),
    ]

    @Test(arguments: recordings) func whatProgramsDrewIsFollowed(_ recording: Expectation) throws {
        let bytes = try Self.bytes(recording.file)
        for seed in 0..<40 {
            var random = SeededGenerator(seed)
            let log = EventLog()
            Self.read(bytes, pipeline: recording.pipeline, into: log, random: &random)
            let updates = log.updates
            var stages: [String?] = []
            for update in updates where stages.last != .some(update.stage) { stages.append(update.stage) }
            #expect(stages == recording.stages, "seed \(seed)")
            #expect(updates.last == recording.last, "seed \(seed)")
            if let expected = recording.log {
                #expect(log.lines.filter { !$0.contains("%|") } == expected, "seed \(seed)")
            }
            #expect(log.lines.count <= 12, "\(log.lines)")
            #expect(!log.lines.contains { $0.contains("\u{1b}") || $0.contains("[2K") })
            Self.expectNoFall(updates, pipeline: recording.pipeline)
        }
    }

    /// In one piece, as a slow pipe would give it, and byte by byte.
    @Test(arguments: recordings) func chunksDoNotMatter(_ recording: Expectation) throws {
        let bytes = try Self.bytes(recording.file)
        for size in [1, 7, bytes.count] {
            let log = EventLog()
            var output = GeneratorOutput(events: log.events, pipeline: recording.pipeline, atMs: 0)
            for start in stride(from: 0, to: bytes.count, by: size) {
                bytes[start..<min(start + size, bytes.count)].withUnsafeBytes { output.readLog($0, from: .stderr, atMs: start * 20) }
            }
            output.finish(atMs: bytes.count * 20)
            #expect(log.updates.last == recording.last, "chunks of \(size)")
        }
    }

    static func bytes(_ name: String) throws -> [UInt8] {
        let path = "\(#filePath)".replacing("WorkerRuntimeTests/Bars/RecordedBarsTests.swift", with: "Fixtures/bars/\(name).txt")
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 100_000)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes.prefix(count))
    }

    static func read(_ bytes: [UInt8], pipeline: Pipeline, into log: EventLog, random: inout SeededGenerator) {
        var output = GeneratorOutput(events: log.events, pipeline: pipeline, atMs: 0)
        var start = 0
        while start < bytes.count {
            let size = Int.random(in: 1...([1, 20, 300].randomElement(using: &random) ?? 1), using: &random)
            bytes[start..<min(start + size, bytes.count)].withUnsafeBytes { output.readLog($0, from: .stderr, atMs: start * 20) }
            start += size
        }
        output.finish(atMs: bytes.count * 20)
    }

    /// The job's bar never goes back, whatever the bars do.
    static func expectNoFall(_ updates: [ProgressUpdate], pipeline: Pipeline) {
        var tracker = ProgressTracker(pipeline: pipeline, startedAtMs: 0)
        var percent = 0.0
        for (index, update) in updates.enumerated() {
            tracker.apply(update, atMs: index * 100)
            let now = tracker.state(atMs: index * 100).percent
            #expect(now >= percent)
            percent = now
        }
    }
}
