/// What a generator says at one moment: every field is optional, none is trusted.
public struct ProgressUpdate: Sendable, Hashable {
    /// The stage that runs now; the same name again means "still this one".
    public var stage: String?
    public var step: Int?
    public var steps: Int?
    /// Share of the current stage (of the current item, if items are counted), 0…100.
    public var percent: Double?
    /// Which of several outputs is being made, from 1.
    public var item: Int?
    public var items: Int?
    public var message: String?

    public init(
        stage: String? = nil,
        step: Int? = nil,
        steps: Int? = nil,
        percent: Double? = nil,
        item: Int? = nil,
        items: Int? = nil,
        message: String? = nil
    ) {
        self.stage = stage
        self.step = step
        self.steps = steps
        self.percent = percent
        self.item = item
        self.items = items
        self.message = message
    }

    /// The update that says what this one and then `newer` say, for conflating a flood.
    public func merged(with newer: ProgressUpdate) -> ProgressUpdate {
        var merged = newer
        if let stage = newer.stage, stage != self.stage { return merged }
        merged.stage = newer.stage ?? stage
        if newer.item == nil || newer.item == item {
            // A percent and a step are two spellings of one thing: the newer one wins whole.
            let isSilent = newer.percent == nil && newer.step == nil
            merged.step = isSilent ? step : newer.step
            merged.percent = isSilent ? percent : newer.percent
            merged.steps = newer.steps ?? steps
        }
        merged.item = newer.item ?? item
        merged.items = newer.items ?? items
        merged.message = newer.message ?? message
        return merged
    }
}

/// One stage of what a job is going to do, as the job itself announces it.
public struct PlannedStage: Sendable, Hashable {
    public var name: String
    /// How many steps the stage has.
    public var units: Double?
    /// Relative cost in the unit the stage scales with (megapixels, panels, …).
    public var work: Double?
    /// How long the job expects the stage to take.
    public var declaredMs: Int?

    public init(name: String, units: Double? = nil, work: Double? = nil, declaredMs: Int? = nil) {
        self.name = name
        self.units = units
        self.work = work
        self.declaredMs = declaredMs
    }
}

/// How long a stage ran, all its visits together.
public struct StageDuration: Sendable, Hashable {
    public let stage: String
    public var ms: Int

    public init(stage: String, ms: Int) {
        self.stage = stage
        self.ms = ms
    }
}
