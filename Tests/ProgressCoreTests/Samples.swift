import ProgressCore

enum Samples {
    /// Five stages as a single-image 3D generator has them.
    static let model3D = Pipeline(
        name: "hunyuan3d",
        stages: [
            .init(name: "image_loading", phase: .analyzing, weight: 0.05, expectedMs: 500),
            .init(name: "image_preprocessing", phase: .analyzing, weight: 0.05, expectedMs: 2000),
            .init(name: "shape_generation", phase: .generating, weight: 0.7, expectedMs: 60_000),
            .init(name: "texture_synthesis", phase: .generating, weight: 0.15, expectedMs: 15_000),
            .init(name: "mesh_export", phase: .postProcessing, weight: 0.05, expectedMs: 3000),
        ]
    )
    static let untimed = Pipeline(
        name: "untimed",
        stages: [
            .init(name: "sample", phase: .generating, weight: 0.5),
            .init(name: "upscale", phase: .generating, weight: 0.25),
            .init(name: "save", phase: .postProcessing, weight: 0.25),
        ]
    )
    static let generic = Pipeline(name: "generic", stages: [])
}

/// A tracker behind a reference: `#expect` cannot capture a value that changes.
final class TrackedJob {
    private var tracker: ProgressTracker

    init(
        pipeline: Pipeline,
        plan: [PlannedStage] = [],
        statistics: LearnedStatistics = LearnedStatistics(),
        hints: JobHints = JobHints(),
        startedAtMs: Int = 0
    ) {
        tracker = ProgressTracker(pipeline: pipeline, plan: plan, statistics: statistics, hints: hints, startedAtMs: startedAtMs)
    }

    @discardableResult
    func apply(_ update: ProgressUpdate, atMs: Int) -> Bool { tracker.apply(update, atMs: atMs) }
    func adopt(_ plan: [PlannedStage]) { tracker.adopt(plan) }
    /// The state at a time, which watchers are then sent.
    func state(atMs: Int) -> ProgressState {
        let state = tracker.state(atMs: atMs)
        tracker.published(state, atMs: atMs)
        return state
    }
    func finish(atMs: Int) -> LearningRecord { tracker.finish(atMs: atMs) }
    func stageDurations(atMs: Int) -> [StageDuration] { tracker.stageDurations(atMs: atMs) }
}
