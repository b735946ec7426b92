/// Where a job stands, as its watchers see it.
///
/// The raw values are the wire and Redis spelling. The order of the first five is the order of work; `failed` and
/// `cancelled` may follow any phase that is not terminal.
public enum Phase: String, Sendable, Hashable, CaseIterable, Codable {
    case queued = "QUEUED"
    case analyzing = "ANALYZING"
    case generating = "GENERATING"
    case postProcessing = "POST_PROCESSING"
    case complete = "COMPLETE"
    case failed = "FAILED"
    case cancelled = "CANCELLED"

    /// True for the three ends of a job. A terminal phase is a latch: nothing follows it.
    public var isTerminal: Bool {
        switch self {
        case .complete, .failed, .cancelled: true
        case .queued, .analyzing, .generating, .postProcessing: false
        }
    }

    /// Position in the order of work, 0 for `queued` … 4 for `complete`; the same digit stands in the header of a
    /// published event (5 `failed`, 6 `cancelled`).
    public var rank: Int {
        switch self {
        case .queued: 0
        case .analyzing: 1
        case .generating: 2
        case .postProcessing: 3
        case .complete: 4
        case .failed: 5
        case .cancelled: 6
        }
    }
}
