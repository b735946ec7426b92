/// A named list of stages: what a job of this kind goes through, and how much of the whole each stage is.
public struct Pipeline: Sendable, Hashable {
    public struct Stage: Sendable, Hashable {
        public let name: String
        /// The phase watchers see while this stage runs.
        public let phase: Phase
        /// Share of the whole job, 0…1; the stages of a pipeline add up to 1.
        public let weight: Double
        /// Usual duration in milliseconds, when the pipeline's author knows it.
        public let expectedMs: Int?
        /// Titles of progress bars that show this stage.
        public let bars: [Bar]

        public init(name: String, phase: Phase, weight: Double, expectedMs: Int? = nil, bars: [Bar] = []) {
            self.name = name
            self.phase = phase
            self.weight = weight
            self.expectedMs = expectedMs
            self.bars = bars
        }
    }

    /// Progress bars, named by their title, that stand for a stage or for a part of one.
    public struct Bar: Sendable, Hashable {
        /// The title as it is drawn, without the colon behind it; `*` stands for any text. An empty one means bars without a title.
        public let title: String
        /// The part of the stage that the bar goes through, in percent of the stage.
        public let from: Double
        public let to: Double

        public init(title: String, from: Double = 0, to: Double = 100) {
            self.title = title
            self.from = from
            self.to = to
        }

        /// Whether a bar of this title is meant.
        public func matches(_ text: String) -> Bool {
            // Greedy with one step back per star: linear but for the last star tried.
            let pattern = Array(title.utf8)
            let text = Array(text.utf8)
            var (p, t) = (0, 0)
            var star: (p: Int, t: Int)?
            while t < text.count {
                if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
                    star = (p, t)
                    p += 1
                } else if p < pattern.count, pattern[p] == text[t] {
                    p += 1
                    t += 1
                } else if let last = star {
                    star = (last.p, last.t + 1)
                    p = last.p + 1
                    t = last.t + 1
                } else {
                    return false
                }
            }
            return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
        }
    }

    public let name: String
    /// In order of work; empty for a pipeline that learns its stages from the job.
    public let stages: [Stage]
    /// Lines of output that tell progress; the first that matches a line counts.
    public let patterns: [ProgressPattern]

    /// The class of jobs that name none: what their durations are learned under.
    public var jobClass: String?

    /// Takes values that are known to be right; what an author wrote goes through `init(validating:stages:patterns:)`.
    public init(name: String, stages: [Stage], patterns: [ProgressPattern] = [], jobClass: String? = nil) {
        self.jobClass = jobClass
        self.name = name
        self.stages = stages
        self.patterns = patterns
    }

    /// The phase of a job from the moment a worker has it: that of the first stage.
    public var firstPhase: Phase { stages.first?.phase ?? .generating }
}
