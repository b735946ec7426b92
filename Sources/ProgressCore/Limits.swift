/// Every bound of the progress core, with its reason.
public enum ProgressLimits {
    /// Text for people: one line in a terminal or a browser, and small beside the rest of an event.
    public static let messageBytes = 512
    /// A stage name is a key in results and a word on a page.
    public static let stageNameBytes = 64
    public static let pipelineNameBytes = 64
    /// Stages of one pipeline, written by its author or learned from a job; the work per update is linear in it.
    public static let stages = 64
    /// Titles of progress bars that mean one stage.
    public static let stageBars = 16
    public static let barTitleBytes = 200
    /// Patterns of one pipeline, each tried on every line of output.
    public static let patterns = 32
    public static let patternBytes = 500
    /// Nested groups, steps of a compiled pattern, and the highest bound of a repetition: matching takes time and memory in
    /// proportion to the steps times the bytes of a line.
    public static let patternDepth = 20
    public static let patternInstructions = 1000
    public static let patternRepeats = 100
    /// What patterns see of a line.
    public static let patternLineBytes = 1000
    /// Steps of one stage: far above any real loop, far below 2^53 (JSON and Lua numbers are doubles).
    public static let steps = 1_000_000_000
    /// Outputs of one job.
    public static let items = 1_000_000
    /// The bar never shows its end before the job has ended.
    public static let percentBeforeEnd = 99.9
    /// Durations and estimates, in milliseconds: 30 days, longer than any job may live.
    public static let durationMs = 30 * 24 * 3_600_000
    /// `work` and `units` of a planned stage.
    public static let planUnits = 1e9
    /// Phase and stage changes reported at once in any second; a generator that changes stage faster is conflated.
    public static let milestonesPerSecond = 16
    /// Highest configurable update rate.
    public static let reportsPerSecond = 100.0

    /// Ticks of one stage that are kept for a trace.
    public static let traceTicks = 64

    /// Places in a line whose wait is forecast; further behind nobody wants minutes.
    public static let forecastPositions = 1000

    // MARK: Learned statistics

    /// Fields of one pipeline's statistics: about 150 bytes each, all of them read at a job's start.
    public static let statisticsFields = 1024
    /// Name of a field: a stage, a class and what joins them.
    public static let statisticsFieldBytes = 3 * stageNameBytes
    /// Sums decay to at most forty times a term; anything near this is damage.
    public static let statisticsMagnitude = 1e9
    /// Counted jobs: an integer that every JSON and Lua number holds.
    public static let statisticsJobs = 1_000_000_000_000
    /// Different orders of stages that are remembered, and the bytes of one.
    public static let routes = 8
    public static let routeBytes = 2048
}
