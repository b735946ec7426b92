/// Turns what a generator says into the progress of its job.
///
/// Invariants, within one attempt (one tracker): `percent`, and `phasePercent` within a phase, never fall; phases only
/// advance; `percent` stays below 100; every number is finite and within `ProgressLimits`, whatever comes in. Time is an
/// argument, in milliseconds of any one clock; going backwards counts as standing still.
///
/// A stage that is left for a later one counts as done, and so do stages that were skipped. Going back to an earlier stage
/// holds the bar. With items (`image 2 of 4`) a stage is done in as many parts. A pipeline without stages learns them: what
/// has no name fills the whole bar, each named stage takes most of what is left. A name that a pipeline with stages does
/// not know is shown, and moves nothing.
public struct ProgressTracker<Estimator: ProgressEstimator>: Sendable {
    var estimator: Estimator
    var stages: [StageProgress]
    var visit: StageVisit?
    var phase: Phase
    var now: Int
    /// The bar as clients draw it: its place when it was last asked for, and the speed that was told then.
    var bar = (percent: 0.0, atMs: 0, perSecond: 0.0)
    var phasePercent = 0.0

    /// What is shown: the current stage by its own name, whether known or not, and its counters.
    var stageName: String?
    var shownFraction: Double?
    var step: Int?
    var steps: Int?
    var item: Int?
    var items: Int?
    var message: String?

    private let learnsStages: Bool
    private let hasOwnStages: Bool
    private var isPlanned = false
    private var durations: [StageDuration] = []
    private var running: (index: Int, sinceMs: Int)?

    /// A learned stage takes this share of what is left of the bar, so that there is room for another one.
    private static var learnedShare: Double { 0.8 }

    /// - Parameters:
    ///   - plan: what the job is going to do, if it said so.
    ///   - items: how many outputs it is going to make, if it said so.
    ///   - startedAtMs: now.
    public init(pipeline: Pipeline, estimator: Estimator, plan: [PlannedStage] = [], items: Int? = nil, startedAtMs: Int) {
        self.estimator = estimator
        self.stages = pipeline.stages.prefix(ProgressLimits.stages).map {
            StageProgress(name: $0.name, phase: $0.phase, weight: $0.weight, expectedMs: $0.expectedMs.map(Double.init))
        }
        self.phase = pipeline.firstPhase
        self.hasOwnStages = !pipeline.stages.isEmpty
        self.learnsStages = pipeline.stages.isEmpty
        self.now = startedAtMs
        self.bar.atMs = startedAtMs
        self.items = Self.count(items, atMost: ProgressLimits.items)
        adopt(plan)
    }

    /// True while the stages were neither given nor announced.
    private var isLearning: Bool { learnsStages && !isPlanned }

    // MARK: Input

    /// Takes in one update. True when the phase or the stage changed: watchers are to hear of it at once.
    @discardableResult
    public mutating func apply(_ update: ProgressUpdate, atMs: Int) -> Bool {
        advanceClock(to: atMs)
        let phaseBefore = phase
        let stageBefore = stageName
        if let name = update.stage.flatMap(StageName.sanitised), name != stageName {
            enter(name, update: update)
        }
        if let text = update.message { message = MessageText.sanitised(text) }
        if update.step != nil || update.percent != nil || update.item != nil || update.items != nil || update.steps != nil {
            tick(update)
        }
        return phase != phaseBefore || stageName != stageBefore
    }

    /// Takes the job's own plan. For a pipeline with stages it says which of them will run and how long they may take; for
    /// one without, it is the list of stages. What has been shown is held.
    public mutating func adopt(_ plan: [PlannedStage]) {
        guard !plan.isEmpty else { return }
        var planned: [PlannedStage] = []
        for var stage in plan.prefix(ProgressLimits.stages) {
            guard let name = StageName.sanitised(stage.name), !planned.contains(where: { $0.name == name }) else { continue }
            stage.name = name
            planned.append(stage)
        }
        if hasOwnStages {
            planned.removeAll { stage in !stages.contains { $0.name == stage.name } }
            guard !planned.isEmpty else { return }
            reweigh(by: planned)
        } else if !isPlanned, !planned.isEmpty {
            isPlanned = true
            let learned = stages
            let current = visit.map { learned[$0.stage].name }
            let weights = Self.weights(of: planned)
            stages = zip(planned, weights).map { stage, weight in
                var made = StageProgress(name: stage.name, phase: .generating, weight: weight, expectedMs: Self.declared(stage))
                if let known = learned.first(where: { $0.name == stage.name }) {
                    (made.fraction, made.spentMs, made.wasVisited) = (known.fraction, known.spentMs, known.wasVisited)
                }
                return made
            }
            visit = nil
            if let index = stages.firstIndex(where: { $0.name == current }) { beginVisit(index) }
        }
    }

    // MARK: Stages

    private mutating func enter(_ name: String, update: ProgressUpdate) {
        // Leaving a stage for a later one finishes it; while items are being counted, only the part of the current item.
        var doneShare = 1.0
        if let item, let items, items > 1, update.item != nil || item < items { doneShare = Double(item) / Double(items) }
        if update.item == nil, item == items { item = nil }
        endVisit()
        stageName = name
        step = nil
        steps = nil
        shownFraction = nil
        message = nil
        beginDuration(name)
        if let index = stages.firstIndex(where: { $0.name == name }) {
            enter(index, doneShare: doneShare)
        } else if isLearning, stages.count < ProgressLimits.stages {
            learn(name)
        }
    }

    private mutating func enter(_ index: Int, doneShare: Double) {
        for earlier in stages[..<index].indices where stages[earlier].fraction < doneShare { stages[earlier].fraction = doneShare }
        beginVisit(index)
        if stages[index].phase.rank > phase.rank {
            phase = stages[index].phase
            phasePercent = 0
        }
    }

    private mutating func learn(_ name: String) {
        var used = 0.0
        for index in stages.indices {
            // Whatever was not done of earlier stages is not going to be: their share shrinks to what was.
            if stages[index].fraction < 1, stages[index].name.isEmpty { stages[index].weight *= stages[index].fraction }
            stages[index].fraction = 1
            used += stages[index].weight
        }
        // The unnamed stage is the whole job, for as long as nothing else is named.
        let share = name.isEmpty ? 1 : Self.learnedShare
        stages.append(StageProgress(name: name, phase: .generating, weight: max(0, 1 - used) * share))
        beginVisit(stages.count - 1)
    }

    private mutating func beginVisit(_ index: Int) {
        stages[index].wasVisited = true
        visit = StageVisit(stage: index, enteredAtMs: now, fractionAtEntry: stages[index].fraction, lastTickAtMs: now)
    }

    private mutating func endVisit() {
        if let visit { stages[visit.stage].spentMs += now - visit.enteredAtMs }
        visit = nil
    }

    private mutating func reweigh(by planned: [PlannedStage]) {
        var sum = 0.0
        for index in stages.indices {
            if let plan = planned.first(where: { $0.name == stages[index].name }) {
                if let declared = Self.declared(plan) { stages[index].expectedMs = declared }
                sum += stages[index].weight
            } else if !stages[index].wasVisited {
                // It is not going to run.
                stages[index].weight = 0
                stages[index].expectedMs = 0
                stages[index].fraction = 1
            } else {
                sum += stages[index].weight
            }
        }
        guard sum > 0 else { return }
        for index in stages.indices { stages[index].weight /= sum }
    }

    private static func declared(_ stage: PlannedStage) -> Double? {
        stage.declaredMs.flatMap { (1...ProgressLimits.durationMs).contains($0) ? Double($0) : nil }
    }

    /// Declared durations if all have one, else units × work if that is known of all, else equal shares.
    private static func weights(of plan: [PlannedStage]) -> [Double] {
        func positive(_ value: Double?) -> Double? {
            value.flatMap { $0 > 0 && $0 <= ProgressLimits.planUnits ? $0 : nil }
        }
        var shares = plan.compactMap(declared)
        if shares.count < plan.count {
            shares = plan.compactMap { stage in
                guard stage.units != nil || stage.work != nil else { return nil }
                return (positive(stage.units) ?? 1) * (positive(stage.work) ?? 1)
            }
        }
        if shares.count < plan.count { shares = plan.map { _ in 1 } }
        let sum = shares.reduce(0, +)
        return shares.map { $0 / sum }
    }

    // MARK: Ticks

    private mutating func tick(_ update: ProgressUpdate) {
        let totalItems = Self.count(update.items, atMost: ProgressLimits.items) ?? items
        let nextItem = update.item.map { min(max($0, 1), totalItems ?? ProgressLimits.items) } ?? item
        if nextItem != item {
            // The counters belonged to the item before.
            step = nil
            item = nextItem
        }
        items = totalItems
        steps = Self.count(update.steps, atMost: ProgressLimits.steps) ?? steps
        if let value = update.step { step = min(max(value, 0), steps ?? ProgressLimits.steps) }
        let parts = item == nil ? 1 : Double(items ?? 1)
        let offset = item.map { min(Double($0 - 1), parts - 1) } ?? 0
        var within: Double?
        if let percent = update.percent, percent.isFinite {
            within = min(max(percent, 0), 100) / 100
        } else if let step, let steps {
            within = Double(step) / Double(steps)
        } else if update.item != nil {
            within = 0
        }
        guard let within else { return }
        let tickSize = update.percent == nil ? steps.map { 1 / Double($0) / parts } : nil
        note(fraction: (offset + within) / parts, tickSize: tickSize)
    }

    private mutating func note(fraction: Double, tickSize: Double?) {
        if visit == nil, stageName == nil {
            // Before any stage was named: the first one, or the whole job when stages are learned.
            if let first = stages.indices.first { beginVisit(first) } else if isLearning { learn("") }
        }
        guard var visit, stageName == nil || stages[visit.stage].name == stageName else {
            // A stage that the pipeline does not know.
            shownFraction = max(shownFraction ?? 0, fraction)
            return
        }
        let known = stages[visit.stage].fraction
        if fraction > known {
            visit.ticks += 1
            visit.tickSize = tickSize ?? (fraction - known)
            visit.lastTickAtMs = now
            stages[visit.stage].fraction = fraction
            self.visit = visit
        }
        shownFraction = stages[visit.stage].fraction
    }

    /// Counts make sense from 1; others are as if not given.
    private static func count(_ value: Int?, atMost limit: Int) -> Int? {
        value.flatMap { $0 < 1 ? nil : min($0, limit) }
    }

    // MARK: Time

    mutating func advanceClock(to atMs: Int) { now = max(now, atMs) }

    private mutating func beginDuration(_ name: String) {
        closeDuration()
        if let index = durations.firstIndex(where: { $0.stage == name }) {
            running = (index, now)
        } else if durations.count < ProgressLimits.stages {
            durations.append(StageDuration(stage: name, ms: 0))
            running = (durations.count - 1, now)
        }
    }

    private mutating func closeDuration() {
        if let running { durations[running.index].ms += now - running.sinceMs }
        running = nil
    }

    /// How long every stage has run so far, in the order they were first seen.
    public func stageDurations(atMs: Int) -> [StageDuration] {
        var list = durations
        if let running { list[running.index].ms += max(now, atMs) - running.sinceMs }
        return list
    }
}

extension ProgressTracker where Estimator == WeightedEstimator {
    /// A tracker with the estimator that needs no history.
    public init(pipeline: Pipeline, plan: [PlannedStage] = [], items: Int? = nil, startedAtMs: Int) {
        self.init(pipeline: pipeline, estimator: WeightedEstimator(), plan: plan, items: items, startedAtMs: startedAtMs)
    }
}
