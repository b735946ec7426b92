/// The constants of the estimator. They were tuned on recorded and synthetic traces (`headway replay`, docs/estimator.md); the
/// result hardly depends on any single one of them.
enum Tuning {
    // MARK: Learning

    /// What a job counts after the next one: a window of about forty jobs.
    static let forgetting = 0.975
    /// Less than that before the first stage, in seconds, is none.
    static let shortestStart = 0.05
    /// The same for the histogram of residuals, which needs more jobs to show two heaps.
    static let histogramForgetting = 0.985
    /// Weight of a parent key (other classes, other temperature) against the key's own jobs, in jobs.
    static let parentWeight = 0.7
    /// Weight of a declared duration, and of no declaration at all, against one job.
    static let declaredWeight = 0.1
    static let undeclaredWeight = 0.02
    /// Duration of a stage of which nothing is known, in seconds.
    static let undeclaredSeconds = 8.0
    /// Pull of the exponents of units and work towards 1.
    static let ridge = 0.3

    // MARK: Spread (σ of the logarithm)

    static let learnedSpread = 0.3
    static let declaredSpread = 0.8
    static let undeclaredSpread = 1.5
    static let smallestSpread = 0.04
    static let largestVariance = 9.0
    /// Jobs that the spread assumed above counts as.
    static let spreadWeight = 1.5
    /// From this many jobs on a key is trusted, see `StageForecast`.
    static let trustedJobs = 1.5

    // MARK: What all stages of a job share

    /// Variance before any was seen, and how many jobs that counts against what was seen.
    static let jobVariance = 0.04
    static let commonWeight = 4.0
    static let jobVariances = 0.002...0.5
    /// How much of it a stage feels at most, and the least part of a stage's variance that is its own.
    static let largestLoading = 1.5
    static let leastOwnShare = 0.2
    /// A residual enters what stages have in common by at most this.
    static let commonClip = 1.2
    static let coldJobVariance = 0.35
    /// Now and then a job is altogether different (another machine, contention): its variance and its share of jobs.
    static let oddJobVariance = 0.35
    static let oddJobShare = 0.04
    /// A single stage pulls the job factor by at most this.
    static let jobFactorClip = 1.5
    /// What a stage of no length would say counts for nothing: it has full weight when it is long against this share of the job.
    static let shortStage = 0.03

    // MARK: Stages in progress

    /// Expected rest of something overdue, as a share of how overdue it is (Lindy).
    static let overdueShare = 0.5
    /// A tick that is due is expected after this share of the gap between two, however long it has been due; one that is later
    /// than this many gaps, plus these seconds, is expected the later the more it is late.
    static let pendingShare = 0.4
    static let lateFactor = 2.0
    static let lateSlack = 0.1
    /// A gap between ticks is a stall when it is this much longer than expected, plus this many seconds.
    static let stallFactor = 5.0
    static let stallSlack = 0.5
    /// Variance of a rate seen in ticks before anything was learned, and how many jobs that counts.
    static let rateVariance = 0.025
    static let smallestRateVariance = 0.0004

    // MARK: Worker speed (tracking signal, Trigg and Leach 1967)

    static let signalGain = 0.15
    static let signalThreshold = 0.75
    static let workerGain = 0.05...0.7
    static let fleetSignalGain = 0.3
    static let fleetThreshold = 0.7
    static let fleetGain = 0.05...0.7
    /// What of a worker's speed is taken out before a duration is learned. The rest moves into the sums over some hundred jobs:
    /// a speed that stays becomes the stage's own.
    static let speedShare = 0.9
    /// The least change that counts as one.
    static let signalFloor = 0.02

    // MARK: Estimate

    /// An error counts by its share of the job's duration, so the short outcomes weigh more: see `RestSum`. The whole of that
    /// would be 1; the variance it works on is bounded, as a guess of a developer errs on the short side.
    static let shortness = 0.7
    static let shortnessVariance = 0.2

    // MARK: Interval (adaptive conformal inference, Gibbs and Candès 2021)

    static let calibrationGain = 0.05
    static let firstQuantile = 1.4
    /// The interval is at least this wide on each side of the estimate.
    static let leastWidth = 0.02
    /// A σ above which no number is shown.
    static let showableSpread = 0.7
    /// Seconds: what certainly ends within them, and has run for longer than that, is told whatever the spread.
    static let soon = 15.0
    /// A rising estimate glides: it grows by at most this factor (as a logarithm) per job duration.
    static let riseRate = 10.0

    // MARK: Bar

    /// How eagerly a bar that is behind catches up, and how much one that is ahead slows down.
    static let catchUp = 8.0
    static let slowDown = 8.0
    static let slowest = 0.15
    /// The bar follows an estimate that is longer than the median by these shares of variance and of excess spread: being
    /// ahead and having to wait is what people mind.
    static let barCaution = 0.15
    static let barDoubt = 1.5
    static let shortestRest = 0.05

    // MARK: Stages in two modes

    /// Least jobs in the histogram, least share and count of each heap, least distance in within-heap σ and in absolute terms.
    static let modeJobs = 8.0
    static let modeShare = 0.2
    static let modeCount = 3.0
    static let modeSeparation = 5.0
    static let modeDistance = 0.4
    static let modeVariance = 0.03

    // MARK: Stages as they come

    /// Unlisted stages may follow: their expected share of what is listed.
    static let unlistedShare = 0.1
}
