public import ProgressCore

/// What a forecast of waits is made from: the workers of a queue, what they do, and who waits.
public struct WaitScene: Sendable {
    /// A live worker that takes jobs of the queue.
    public struct Worker: Sendable, Hashable {
        public var id: String
        public var concurrency: Int
        /// Takes no jobs for so long.
        public var slowedForMs: Int

        public init(id: String, concurrency: Int, slowedForMs: Int = 0) {
            self.id = id
            self.concurrency = concurrency
            self.slowedForMs = slowedForMs
        }
    }

    /// A job that one of them runs, of this queue or another.
    public struct Running: Sendable, Hashable {
        public var job: JobID
        public var worker: String
        public var facts: Facts
        /// Of this queue, so that its limit of running jobs counts it.
        public var isOurs: Bool
        /// What it told last, if it told a time.
        public var told: Told?
        /// Since its claim.
        public var elapsedMs: Int

        public struct Told: Sendable, Hashable {
            public var etaMs: Int
            public var lowMs: Int
            public var highMs: Int
            public var ageMs: Int

            public init(etaMs: Int, lowMs: Int, highMs: Int, ageMs: Int) {
                self.etaMs = etaMs
                self.lowMs = lowMs
                self.highMs = highMs
                self.ageMs = ageMs
            }
        }

        public init(job: JobID, worker: String, facts: Facts, isOurs: Bool = true, told: Told? = nil, elapsedMs: Int = 0) {
            self.job = job
            self.worker = worker
            self.facts = facts
            self.isOurs = isOurs
            self.told = told
            self.elapsedMs = elapsedMs
        }
    }

    /// What decides how long a job takes.
    public struct Facts: Sendable, Hashable {
        public var pipeline: String
        public var jobClass: String?
        public var isCold: Bool
        /// JSON, as submitted.
        public var plan: String?

        public init(pipeline: String, jobClass: String? = nil, isCold: Bool = false, plan: String? = nil) {
            self.pipeline = pipeline
            self.jobClass = jobClass
            self.isCold = isCold
            self.plan = plan
        }
    }

    /// The line in one partition.
    public struct Line: Sendable, Hashable {
        public var isPaused = false
        public var maxRunning: Int?
        /// The first of them, in order, with their priority bands.
        public var jobs: [(job: JobID, band: Int)] = []

        public init() {}

        public static func == (left: Line, right: Line) -> Bool {
            left.isPaused == right.isPaused && left.maxRunning == right.maxRunning && left.jobs.elementsEqual(right.jobs, by: ==)
        }

        public func hash(into hasher: inout Hasher) {
            hasher.combine(isPaused)
            hasher.combine(maxRunning)
            for entry in jobs { hasher.combine(entry.job) }
        }
    }

    /// Redis's clock.
    public var nowMs = 0
    public var workers: [Worker] = []
    public var running: [Running] = []
    public var lines: [Line] = []
    /// Of the waiting jobs that were not known to the caller.
    public var facts: [JobID: Facts] = [:]
    /// When the jobs began that the caller asked about and that left the line; absent: they did not begin.
    public var begunAtMs: [JobID: Int] = [:]

    public init() {}
}
