/// Why a pipeline was refused, in words that name what to change.
public struct PipelineError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case emptyName, illegalName, nameTooLong
        case tooManyStages, duplicateStage
        case unknownPhase, illegalPhase, phaseBackwards
        case weightNotPositive, weightMissing, weightSum
        case expectedNotPositive
        case tooManyBars, badBar
        case tooManyPatterns, badPattern
    }
    public let code: Code
    /// The pipeline as its author named it.
    public let pipeline: String
    /// The stage that is wrong, when it is one.
    public let stage: String?
    /// The pattern that is wrong, by its place in the list from 0, when it is one.
    public let pattern: Int?
    public let message: String

    init(code: Code, pipeline: String, stage: String? = nil, pattern: Int? = nil, message: String) {
        self.code = code
        self.pipeline = pipeline
        self.stage = stage
        self.pattern = pattern
        self.message = message
    }

    public var description: String {
        "pipeline '\(pipeline)'" + (stage.map { ", stage '\($0)'" } ?? "") + ": \(message)"
    }
}

extension Pipeline {
    /// A stage as an author writes it, before anything has been checked.
    public struct Draft: Sendable, Hashable {
        public var name: String
        /// The spelling of a phase: `ANALYZING`, `GENERATING` or `POST_PROCESSING`.
        public var phase: String
        /// Share of the whole, 0…1; given for all stages or for none.
        public var weight: Double?
        public var expectedMs: Int?
        public var bars: [Bar]

        public init(name: String, phase: String, weight: Double? = nil, expectedMs: Int? = nil, bars: [Bar] = []) {
            self.name = name
            self.phase = phase
            self.weight = weight
            self.expectedMs = expectedMs
            self.bars = bars
        }
    }

    /// A pattern as an author writes it.
    public struct PatternDraft: Sendable, Hashable {
        /// A `LinePattern` with groups named as in `ProgressPattern.groups`.
        public var match: String
        /// The stage that a match means.
        public var stage: String?

        public init(match: String, stage: String? = nil) {
            self.match = match
            self.stage = stage
        }
    }

    /// How far the sum of an author's weights may be from 1.
    public static let weightTolerance = 0.001

    /// Checks what an author wrote.
    ///
    /// Weights are given for all stages, and add up to 1, or for none: then they follow the expected durations if every
    /// stage has one, and are equal otherwise.
    ///
    /// - Throws: `PipelineError` with the first thing to change.
    public init(validating name: String, stages drafts: [Draft], patterns: [PatternDraft] = []) throws(PipelineError) {
        func refuse(_ code: PipelineError.Code, _ message: String, stage: String? = nil) -> PipelineError {
            PipelineError(code: code, pipeline: name, stage: stage, message: message)
        }
        if let (code, message) = Self.problem(ofName: name, limit: ProgressLimits.pipelineNameBytes, isAllowed: Self.isNameByte) {
            throw refuse(code, message)
        }
        guard drafts.count <= ProgressLimits.stages else {
            throw refuse(.tooManyStages, "has \(drafts.count) stages; at most \(ProgressLimits.stages) are allowed")
        }
        var phases: [Phase] = []
        var names: Set<String> = []
        for draft in drafts {
            let limit = ProgressLimits.stageNameBytes
            if let (code, message) = Self.problem(ofName: draft.name, limit: limit, isAllowed: StageName.isAllowed) {
                throw refuse(code, "stage name \(message)", stage: draft.name)
            }
            guard names.insert(draft.name).inserted else { throw refuse(.duplicateStage, "is listed twice", stage: draft.name) }
            guard let phase = Phase(rawValue: draft.phase) else {
                throw refuse(.unknownPhase, "no such phase: '\(draft.phase)'; use \(Self.workPhases)", stage: draft.name)
            }
            guard phase != .queued, !phase.isTerminal else {
                throw refuse(.illegalPhase, "no stage runs in \(draft.phase); use \(Self.workPhases)", stage: draft.name)
            }
            if let last = phases.last, phase.rank < last.rank {
                throw refuse(.phaseBackwards, "\(draft.phase) comes after \(last.rawValue); phases only advance", stage: draft.name)
            }
            if let expected = draft.expectedMs, !(1...ProgressLimits.durationMs).contains(expected) {
                throw refuse(.expectedNotPositive, "expected_ms is \(expected); give 1…\(ProgressLimits.durationMs)", stage: draft.name)
            }
            if let (code, message) = Self.problem(ofBars: draft.bars) { throw refuse(code, message, stage: draft.name) }
            phases.append(phase)
        }
        let weights = try Self.weights(of: drafts, pipeline: name)
        self.init(
            name: name,
            stages: drafts.indices.map { index in
                Stage(
                    name: drafts[index].name,
                    phase: phases[index],
                    weight: weights[index],
                    expectedMs: drafts[index].expectedMs,
                    bars: drafts[index].bars
                )
            },
            patterns: try Self.patterns(patterns, pipeline: name)
        )
    }

    private static func problem(ofBars bars: [Bar]) -> (PipelineError.Code, String)? {
        guard bars.count <= ProgressLimits.stageBars else {
            return (.tooManyBars, "has \(bars.count) bars; at most \(ProgressLimits.stageBars) are allowed")
        }
        for bar in bars {
            guard bar.title.utf8.count <= ProgressLimits.barTitleBytes else {
                return (.badBar, "the title of a bar is longer than \(ProgressLimits.barTitleBytes) bytes")
            }
            guard bar.from >= 0, bar.from < bar.to, bar.to <= 100 else {
                return (.badBar, "the bar '\(bar.title)' goes from \(bar.from) to \(bar.to); give 0 ≤ from < to ≤ 100")
            }
        }
        return nil
    }

    private static func patterns(_ drafts: [PatternDraft], pipeline: String) throws(PipelineError) -> [ProgressPattern] {
        guard drafts.count <= ProgressLimits.patterns else {
            throw PipelineError(
                code: .tooManyPatterns,
                pipeline: pipeline,
                message: "has \(drafts.count) progress patterns; at most \(ProgressLimits.patterns) are allowed"
            )
        }
        var patterns: [ProgressPattern] = []
        for (index, draft) in drafts.enumerated() {
            func refuse(_ message: String) -> PipelineError {
                PipelineError(
                    code: .badPattern,
                    pipeline: pipeline,
                    pattern: index,
                    message: "progress pattern '\(draft.match)' \(message)"
                )
            }
            let match: LinePattern
            do {
                match = try LinePattern(draft.match)
            } catch {
                throw refuse(error.description)
            }
            if let name = match.groups.first(where: { !ProgressPattern.groups.contains($0) }) {
                throw refuse("has a group '\(name)'; allowed are \(ProgressPattern.groups.joined(separator: ", "))")
            }
            if let stage = draft.stage {
                let limit = ProgressLimits.stageNameBytes
                if let (_, message) = problem(ofName: stage, limit: limit, isAllowed: StageName.isAllowed) {
                    throw refuse("means the stage '\(stage)', whose name \(message)")
                }
                if match.groups.contains("stage") { throw refuse("has a group 'stage' and a fixed stage; one of them is enough") }
            } else if match.groups.isEmpty {
                throw refuse("says nothing: give it a group such as (?<percent>\\d+), or a stage")
            }
            patterns.append(ProgressPattern(match: match, stage: draft.stage))
        }
        return patterns
    }

    private static let workPhases = "ANALYZING, GENERATING or POST_PROCESSING"

    private static func problem(
        ofName name: String,
        limit: Int,
        isAllowed: (UInt8) -> Bool
    ) -> (PipelineError.Code, String)? {
        if name.isEmpty { return (.emptyName, "is empty") }
        if name.utf8.count > limit { return (.nameTooLong, "is longer than \(limit) bytes") }
        if !name.utf8.allSatisfy(isAllowed) { return (.illegalName, "holds a character that is not allowed") }
        return nil
    }

    /// `a-z 0-9 _ -`, as in queue names and metric labels.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"): true
        default: false
        }
    }

    private static func weights(of drafts: [Draft], pipeline: String) throws(PipelineError) -> [Double] {
        let given = drafts.compactMap(\.weight)
        if given.isEmpty {
            let expected = drafts.compactMap(\.expectedMs).map(Double.init)
            return normalised(expected.count == drafts.count ? expected : drafts.map { _ in 1 })
        }
        for draft in drafts {
            guard let weight = draft.weight else {
                throw PipelineError(
                    code: .weightMissing,
                    pipeline: pipeline,
                    stage: draft.name,
                    message: "has no weight; give all stages one, or none"
                )
            }
            guard weight > 0, weight.isFinite else {
                throw PipelineError(
                    code: .weightNotPositive,
                    pipeline: pipeline,
                    stage: draft.name,
                    message: "weight \(weight) is not positive"
                )
            }
        }
        let sum = given.reduce(0, +)
        guard abs(sum - 1) <= weightTolerance else {
            throw PipelineError(code: .weightSum, pipeline: pipeline, stage: nil, message: "weights add up to \(sum), not to 1")
        }
        return normalised(given)
    }

    /// Takes out the rest within the tolerance, so that a finished pipeline is exactly 1.
    private static func normalised(_ weights: [Double]) -> [Double] {
        let sum = weights.reduce(0, +)
        return weights.map { $0 / sum }
    }
}
