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

        public init(name: String, phase: Phase, weight: Double, expectedMs: Int? = nil) {
            self.name = name
            self.phase = phase
            self.weight = weight
            self.expectedMs = expectedMs
        }
    }

    public let name: String
    /// In order of work; empty for a pipeline that learns its stages from the job.
    public let stages: [Stage]

    /// Takes values that are known to be right; what an author wrote goes through `init(validating:stages:)`.
    public init(name: String, stages: [Stage]) {
        self.name = name
        self.stages = stages
    }

    /// The phase of a job from the moment a worker has it: that of the first stage.
    public var firstPhase: Phase { stages.first?.phase ?? .generating }
}
