/// What a job says about itself before it starts, as far as its duration depends on it.
public struct JobHints: Sendable, Hashable {
    /// Who runs it: a worker's own speed is learned.
    public var worker: String
    /// The kind of machine or of job, e.g. a GPU model.
    public var jobClass: String
    /// Models are not loaded yet.
    public var isCold: Bool

    /// - Parameters are cut and cleaned as stage names are; an absent class is `-`.
    public init(worker: String = "", jobClass: String? = nil, isCold: Bool = false) {
        self.worker = StageName.sanitised(worker) ?? "-"
        self.jobClass = jobClass.flatMap(StageName.sanitised) ?? "-"
        self.isCold = isCold
    }
}

/// The names of learned values: fields of the hash in Redis, lines of an export. `|` and `*` are in none of the parts.
enum StageKey {
    /// Regression sums of one stage: n, Σx1, Σx2, Σy, Σx1², Σx1x2, Σx2², Σx1y, Σx2y.
    static func sums(_ stage: String, _ jobClass: String, _ temperature: String) -> String { "s|\(stage)|\(jobClass)|\(temperature)" }
    /// Squared one-step-ahead errors: n, Σr².
    static func residuals(_ stage: String) -> String { "r|\(stage)" }
    /// Share of the stage's time at each tenth of its ticks: n, eleven sums.
    static func curve(_ stage: String) -> String { "c|\(stage)" }
    /// Squared errors of the rate seen in the ticks, at each tenth: n, ten sums.
    static func rateErrors(_ stage: String) -> String { "e|\(stage)" }
    /// What its residual has in common with those of the job's other stages: n, Σ of products.
    static func common(_ stage: String) -> String { "g|\(stage)" }
    /// Histogram of the residuals.
    static func histogram(_ stage: String) -> String { "h|\(stage)" }
    /// Speed of a worker: factor, signed and absolute mean error.
    static func worker(_ name: String) -> String { "w|\(name)" }
    /// The same for all workers together.
    static let fleet = "w|*"
    static let anyClass = "*"
    static let anyTemperature = "*"
    static func temperature(_ isCold: Bool) -> String { isCold ? "1" : "0" }

    /// How many numbers a field of this name has; nil for a name that is none.
    static func width(of field: some StringProtocol) -> Int? {
        guard field.utf8.count <= ProgressLimits.statisticsFieldBytes else { return nil }
        let parts = field.split(separator: "|", omittingEmptySubsequences: false)
        switch (parts.first, parts.count) {
        case ("s", 4): return 9
        case ("r", 2), ("g", 2): return 2
        case ("c", 2): return 1 + TickCurve.points
        case ("e", 2): return TickCurve.points
        case ("h", 2): return ResidualHistogram.bins
        case ("w", 2): return 3
        default: return nil
        }
    }
}
