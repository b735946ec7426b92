/// Turns what a generator says into the progress of its job.
///
/// Invariants, within one attempt (one tracker): `percent`, and `phasePercent` within a phase, never fall; phases only
/// advance; `percent` stays below 100; every number is finite and within `ProgressLimits`, whatever comes in. Time is an
/// argument, in milliseconds of any one clock; going backwards counts as standing still.
///
/// `percent` is time: the share of the job's expected duration that has passed, drawn as a bar that is told speeds and never
/// jumps. A stage that is left for a later one is over, and so are stages that were skipped. With items (`image 2 of 4`) a
/// stage is done in as many parts.
///
/// The stages are those of the pipeline or of the job's plan. A job with neither is expected to go the way an earlier job of
/// its pipeline went that began the same; without one, its stages are listed as they come. A name that is on no list is
/// shown, timed, and finishes no other stage.
public struct ProgressTracker: Sendable {
    /// Where the list of stages comes from.
    private enum Source {
        case pipeline, plan, route, found
    }

    struct ListedStage: Sendable {
        var outline: StageOutline
        /// How much of it is shown as done, 0…1; never falls.
        var fraction = 0.0
        var wasVisited = false
        /// It came without being listed, so that its place among the others is not known.
        var isExtra = false
    }

    var estimator: LearnedEstimator
    private(set) var stages: [ListedStage] = []
    private let pipeline: Pipeline
    private let statistics: LearnedStatistics
    private var source: Source
    /// Index of the current stage, and of the last one that was listed; nil before the first.
    private var current: Int?
    private var place: Int?
    /// The stages in the order they were entered, as indices.
    private var path: [Int] = []
    private var usesItems = false

    var phase: Phase
    var phaseBeganAtMs: Int
    var now: Int
    let startedAtMs: Int
    var bar: MovingBar
    var phasePercent = 0.0

    /// What is shown: the current stage by its own name, whether listed or not, and its counters.
    var stageName: String?
    var shownFraction: Double?
    var step: Int?
    var steps: Int?
    var item: Int?
    var items: Int?
    var message: String?

    private var durations: [StageDuration] = []
    private var running: (index: Int, sinceMs: Int)?
    /// When its stages began, ended and ticked.
    public private(set) var trace: TraceRecorder

    /// - Parameters:
    ///   - plan: what the job is going to do, if it said so.
    ///   - items: how many outputs it is going to make, if it said so.
    ///   - statistics: of earlier jobs of its pipeline.
    ///   - startedAtMs: now.
    public init(
        pipeline: Pipeline,
        plan: [PlannedStage] = [],
        items: Int? = nil,
        statistics: LearnedStatistics = LearnedStatistics(),
        hints: JobHints = JobHints(),
        startedAtMs: Int
    ) {
        self.pipeline = pipeline
        self.statistics = statistics
        self.startedAtMs = startedAtMs
        now = startedAtMs
        phase = pipeline.firstPhase
        phaseBeganAtMs = startedAtMs
        estimator = LearnedEstimator(statistics: statistics, hints: hints, startedAt: Self.seconds(startedAtMs))
        bar = MovingBar(startedAt: Self.seconds(startedAtMs))
        trace = TraceRecorder(startedAtMs: startedAtMs)
        source = pipeline.stages.isEmpty ? .found : .pipeline
        self.items = Self.count(items, atMost: ProgressLimits.items)
        if source == .pipeline {
            list(StageOutline.list(pipeline, statistics: statistics))
        } else if let route = statistics.routes.first?.route {
            source = .route
            list(route.names.map { StageOutline(name: $0) })
        }
        adopt(plan)
    }

    /// The stages that the job's plan or its pipeline announced; none when they were taken as they came.
    public var announced: [StageOutline] {
        switch source {
        case .plan, .pipeline: stages.filter { !$0.isExtra && $0.outline.probability > 0 }.map(\.outline)
        case .route, .found: []
        }
    }

    static func seconds(_ ms: Int) -> Double { Double(ms) / 1000 }

    private mutating func list(_ outlines: [StageOutline], keeping kept: [Int: Int] = [:]) {
        let old = stages
        stages = outlines.enumerated().map { index, outline in
            var stage = ListedStage(outline: outline)
            if let known = kept[index] { (stage.fraction, stage.wasVisited) = (old[known].fraction, old[known].wasVisited) }
            return stage
        }
        estimator.list(outlines, keeping: kept)
        func moved(_ index: Int?) -> Int? { kept.first { $0.value == index }?.key }
        current = moved(current)
        place = moved(place)
        path = path.compactMap(moved)
    }

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

    /// Takes the job's own plan. For a pipeline with stages it says which of them will run, how large they are and how long they
    /// may take; for one without, it is the list of stages. What has been shown is held. A later plan replaces an earlier one,
    /// for a job that finds out more as it goes: what ran is kept, what is only in the earlier plan will not run.
    public mutating func adopt(_ plan: [PlannedStage]) {
        guard !plan.isEmpty else { return }
        var planned: [StageOutline] = []
        for stage in plan.prefix(ProgressLimits.stages) {
            guard let name = StageName.sanitised(stage.name), !planned.contains(where: { $0.name == name }) else { continue }
            planned.append(StageOutline(stage, name: name))
        }
        if source == .pipeline {
            adoptForPipeline(planned)
        } else if !planned.isEmpty {
            let isFirst = source != .plan
            source = .plan
            estimator.expectsUnlisted = false
            // A first plan is the list; stages that are not on it were named by chance. A later one follows what ran.
            let ran = isFirst ? [] : stages.map(\.outline).filter { old in !planned.contains { $0.name == old.name } }
            relist(ran.filter { isVisited($0.name) } + planned)
        }
    }

    private func isVisited(_ name: String) -> Bool { stages.contains { $0.wasVisited && $0.outline.name == name } }

    /// Lists these stages; those that were listed before keep what was seen of them.
    private mutating func relist(_ outlines: [StageOutline]) {
        let outlines = Array(outlines.prefix(ProgressLimits.stages))
        var kept: [Int: Int] = [:]
        for (index, outline) in outlines.enumerated() {
            if let old = stages.lastIndex(where: { $0.outline.name == outline.name }) { kept[index] = old }
        }
        list(outlines, keeping: kept)
    }

    private mutating func adoptForPipeline(_ planned: [StageOutline]) {
        guard planned.contains(where: { plan in stages.contains { $0.outline.name == plan.name } }) else { return }
        var kept: [Int: Int] = [:]
        var outlines: [StageOutline] = []
        for (index, stage) in stages.enumerated() {
            var outline = stage.outline
            if let plan = planned.first(where: { $0.name == outline.name }) {
                outline.units = plan.units ?? outline.units
                outline.work = plan.work ?? outline.work
                outline.declaredMs = plan.declaredMs ?? outline.declaredMs
                outline.probability = 1
            } else if !stage.wasVisited {
                // It is not going to run.
                outline.probability = 0
            }
            kept[index] = index
            outlines.append(outline)
        }
        list(outlines, keeping: kept)
    }

    /// Takes what the job says of itself; what it does not say stays.
    public mutating func adopt(jobClass: String?, isCold: Bool?) {
        var hints = hints
        if let name = jobClass.flatMap(StageName.sanitised) { hints.jobClass = name }
        if let isCold { hints.isCold = isCold }
        guard hints != self.hints else { return }
        estimator.hints = hints
        // The same stages, forecast anew.
        estimator.list(stages.map(\.outline), keeping: Dictionary(uniqueKeysWithValues: stages.indices.map { ($0, $0) }))
    }

    /// What its durations are learned under.
    public var hints: JobHints { estimator.hints }

    // MARK: Stages

    private mutating func enter(_ name: String, update: ProgressUpdate) {
        // Leaving a stage for a later one finishes it; while items are being counted, only the part of the current item.
        var doneShare = 1.0
        if let item, let items, items > 1, update.item != nil || item < items { doneShare = Double(item) / Double(items) }
        if update.item == nil, item == items { item = nil }
        let index = find(name) ?? reroute(to: name) ?? append(name)
        leave(for: index, doneShare: doneShare)
        stageName = name
        step = nil
        steps = nil
        shownFraction = nil
        message = nil
        beginDuration(name)
        trace.enter(name, atMs: now)
        begin(index)
    }

    private mutating func begin(_ index: Int?, sinceStart: Bool = false) {
        current = index
        estimator.enter(index, at: Self.seconds(now), sinceStart: sinceStart)
        guard let index else { return }
        if !stages[index].isExtra { place = index }
        let isNew = !usesItems || !path.contains(index)
        if isNew, path.count < ProgressLimits.stages { path.append(index) }
        stages[index].wasVisited = true
        if stages[index].outline.phase.rank > phase.rank {
            phase = stages[index].outline.phase
            phasePercent = 0
            phaseBeganAtMs = now
        }
    }

    /// The stage of this name that comes next, else one that was there before.
    private func find(_ name: String) -> Int? {
        if let place, let next = stages.indices.first(where: { $0 > place && stages[$0].outline.name == name }) { return next }
        return stages.lastIndex { $0.outline.name == name }
    }

    /// Another way that an earlier job went, on which this job's stages so far lie, and then `name`.
    private mutating func reroute(to name: String) -> Int? {
        guard source == .route else { return nil }
        let wanted = path.map { stages[$0].outline.name } + [name]
        for candidate in statistics.routes {
            let names = candidate.route.names
            var places: [Int] = []
            for name in wanted {
                guard let next = names.indices.first(where: { $0 > places.last ?? -1 && names[$0] == name }) else { break }
                places.append(next)
            }
            guard places.count == wanted.count, let last = places.last else { continue }
            var kept: [Int: Int] = [:]
            for (new, old) in zip(places, path) { kept[new] = old }
            list(names.map { StageOutline(name: $0) }, keeping: kept)
            return last
        }
        // None: what was expected is not going to come.
        source = .found
        estimator.expectsUnlisted = true
        let visited = stages.indices.filter { stages[$0].wasVisited }
        list(visited.map { stages[$0].outline }, keeping: Dictionary(uniqueKeysWithValues: visited.enumerated().map { ($0, $1) }))
        return nil
    }

    private mutating func append(_ name: String) -> Int? {
        guard stages.count < ProgressLimits.stages else { return nil }
        var stage = ListedStage(outline: StageOutline(name: name, phase: phase))
        stage.isExtra = source != .found
        stages.append(stage)
        estimator.append(stage.outline)
        // The unnamed stage is the whole job, for as long as nothing else is named.
        if source == .found { estimator.expectsUnlisted = !name.isEmpty }
        return stages.count - 1
    }

    private mutating func leave(for index: Int?, doneShare: Double) {
        let time = Self.seconds(now)
        guard let next = index else { return estimator.leave(at: time, share: nil) }
        let isForward = !stages[next].isExtra && next > place ?? -1
        if let current {
            let isOver = stages[current].isExtra || isForward
            let share = isOver ? (stages[current].isExtra ? 1 : doneShare) : doneShare < 1 ? doneShare : nil
            if let share { stages[current].fraction = max(stages[current].fraction, share) }
            estimator.leave(at: time, share: share)
        } else {
            estimator.leave(at: time, share: nil)
        }
        guard isForward else { return }
        for earlier in 0..<next where !stages[earlier].isExtra && stages[earlier].fraction < doneShare {
            stages[earlier].fraction = doneShare
            if doneShare >= 1 { estimator.skip(earlier..<earlier + 1) } else { estimator.setShare(doneShare, of: earlier) }
        }
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
        usesItems = usesItems || item != nil
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
        let units = update.percent == nil ? Double(steps ?? 1) * parts : nil
        note(fraction: (offset + within) / parts, units: units)
    }

    private mutating func note(fraction: Double, units: Double?) {
        if current == nil, stageName == nil {
            // Before any stage was named: the first one, or the whole job when stages are learned.
            let index = source == .found ? append("") : find("") ?? reroute(to: "") ?? (source == .found ? append("") : 0)
            leave(for: index, doneShare: 1)
            begin(index, sinceStart: true)
        }
        guard let current else {
            shownFraction = max(shownFraction ?? 0, fraction)
            return
        }
        let known = stages[current].fraction
        let size = units.map { 1 / max($0, 1) } ?? max(fraction - known, 0.01)
        estimator.tick(share: fraction, size: size, units: units, at: Self.seconds(now))
        trace.tick(units.map { (fraction * $0).rounded() } ?? (fraction * 100).rounded(), units: units ?? 100, atMs: now)
        stages[current].fraction = max(known, fraction)
        shownFraction = stages[current].fraction
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

    /// What the job taught, at its good end. The tracker is of no further use.
    public mutating func finish(atMs: Int) -> LearningRecord {
        advanceClock(to: atMs)
        estimator.leave(at: Self.seconds(now), share: 1)
        trace.end(atMs: now)
        let names = path.map { stages[$0].outline.name }
        return estimator.record(endedAt: Self.seconds(now), route: source == .plan ? nil : StageRoute(names))
    }
}
