/// The whole progress of a job at one moment, as a worker writes it: plain values, all of them replaced by the next write.
public struct ProgressState: Sendable, Equatable {
    /// Never terminal: the ends have their own verbs.
    public var phase: Phase
    /// Share of the phase that is done, 0…100.
    public var phasePercent: Double
    /// Share of the whole job that is done, 0…100; 100 is reached only at COMPLETE.
    public var percent: Double
    /// Expected change of `percent` per second, when known.
    public var percentPerSecond: Double?
    /// The pipeline's finer unit, e.g. `shape_generation`.
    public var stage: String?
    public var stagePercent: Double?
    public var step: Int?
    public var steps: Int?
    /// Which of several outputs is being made, from 1.
    public var item: Int?
    public var items: Int?
    /// Free text for people, at most 512 bytes.
    public var message: String?
    /// Expected remaining time in milliseconds and its 80 % interval.
    public var etaMs: Int?
    public var etaLowMs: Int?
    public var etaHighMs: Int?
    /// No progress for longer than the stage's usual gap.
    public var isStalled: Bool
    /// The interval of the estimate is too wide to show a number.
    public var isEstimating: Bool

    public init(
        phase: Phase,
        phasePercent: Double = 0,
        percent: Double = 0,
        percentPerSecond: Double? = nil,
        stage: String? = nil,
        stagePercent: Double? = nil,
        step: Int? = nil,
        steps: Int? = nil,
        item: Int? = nil,
        items: Int? = nil,
        message: String? = nil,
        etaMs: Int? = nil,
        etaLowMs: Int? = nil,
        etaHighMs: Int? = nil,
        isStalled: Bool = false,
        isEstimating: Bool = false
    ) {
        self.phase = phase
        self.phasePercent = phasePercent
        self.percent = percent
        self.percentPerSecond = percentPerSecond
        self.stage = stage
        self.stagePercent = stagePercent
        self.step = step
        self.steps = steps
        self.item = item
        self.items = items
        self.message = message
        self.etaMs = etaMs
        self.etaLowMs = etaLowMs
        self.etaHighMs = etaHighMs
        self.isStalled = isStalled
        self.isEstimating = isEstimating
    }
}
