import FoundationEssentials
import ProgressCore

/// One event of a job as the gateway sends it; unknown fields are ignored, absent ones are nil.
struct JobEvent: Sendable, Decodable, Equatable {
    struct Failure: Sendable, Decodable, Equatable {
        var code: String
        var message: String?
        var recoverable: Bool?
    }

    /// Who asked for the end of the job, and why.
    struct Cancel: Sendable, Decodable, Equatable {
        var by: String?
        var reason: String?
    }

    /// A file of a job's result.
    struct File: Sendable, Decodable, Equatable {
        var name: String
        var bytes: Int?
        var url: String
    }

    struct Result: Sendable, Decodable, Equatable {
        var files: [File]?
    }

    /// How many children of a group are in which state.
    struct Children: Sendable, Decodable, Equatable {
        var expected: Int
        var waiting: Int?
        var running: Int?
        var complete: Int?
        var failed: Int?
        var cancelled: Int?
    }

    var job: String?
    var seq: Int?
    var type: String
    var phase: Phase?
    var phasePercent: Double?
    var percent: Double?
    var percentPerS: Double?
    var stage: String?
    var stagePercent: Double?
    var step: Int?
    var steps: Int?
    var item: Int?
    var items: Int?
    var message: String?
    var etaMs: Int?
    var etaLowMs: Int?
    var etaHighMs: Int?
    var stalled: Bool?
    var estimating: Bool?
    var attempt: Int?
    var at: Int?
    var durationMs: Int?
    var queuePosition: Int?
    var queueAhead: Int?
    /// Why the job has no place in the line, e.g. `tenant_limit`; so many others of the same owner are let in before it.
    var heldBy: String?
    var ownAhead: Int?
    /// Why nothing is said of its wait, e.g. `no_worker`.
    var reason: String?
    /// When a delayed job may begin, in Unix milliseconds.
    var dueAt: Int?
    var children: Children?
    var error: Failure?
    var cancel: Cancel?
    var result: Result?
    // Only in answers to a GET of the job.
    var queue: String?
    var pipeline: String?

    private enum CodingKeys: String, CodingKey {
        case job, seq, type, phase, percent, stage, step, steps, item, items, message, stalled, estimating, attempt, at, error, cancel,
            result
        case queue, pipeline, children, reason
        case phasePercent = "phase_percent"
        case percentPerS = "percent_per_s"
        case stagePercent = "stage_percent"
        case etaMs = "eta_ms"
        case etaLowMs = "eta_low_ms"
        case etaHighMs = "eta_high_ms"
        case durationMs = "duration_ms"
        case queuePosition = "queue_position"
        case queueAhead = "queue_ahead"
        case heldBy = "held_by"
        case ownAhead = "own_ahead"
        case dueAt = "due_at"
    }

    /// Nil when `json` is no event.
    static func parse(_ json: String) -> JobEvent? {
        try? JSONDecoder().decode(JobEvent.self, from: Data(json.utf8))
    }

    /// The last event a watch of this job will ever get.
    var isEnd: Bool { type == "gone" || (phase?.isTerminal ?? false) }

    /// It says where the job waits: a `queue` event, or a state with the members of one.
    var tellsPlace: Bool { queueAhead != nil || queuePosition != nil || heldBy != nil || dueAt != nil }

    /// Changes people want to see each, not only the newest.
    var isMilestone: Bool {
        switch type {
        case "phase", "stage", "complete", "failed", "cancelled", "gone", "reset": true
        default: false
        }
    }
}
