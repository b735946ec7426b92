/// What a change from one phase to another means. The table below is the only statement of what is legal.
public enum PhaseTransition: Sendable, Hashable {
    /// The same phase again: the bar moved, or the stage changed.
    case stay
    /// Forward within the attempt; phases may be skipped.
    case advance
    /// Into one of the three ends.
    case end
    /// Back to QUEUED with the next attempt, where everything starts again.
    case requeue

    /// Rows: from; columns: to; both by `Phase.rank`. Nil is refused.
    private static let withinAttempt: [[PhaseTransition?]] = [
        // QUEUED  ANALYZING  GENERATING  POST_PROC.  COMPLETE  FAILED  CANCELLED
        [.stay, .advance, .advance, .advance, .end, .end, .end],  // QUEUED
        [nil, .stay, .advance, .advance, .end, .end, .end],  // ANALYZING
        [nil, nil, .stay, .advance, .end, .end, .end],  // GENERATING
        [nil, nil, nil, .stay, .end, .end, .end],  // POST_PROCESSING
        [nil, nil, nil, nil, nil, nil, nil],  // COMPLETE
        [nil, nil, nil, nil, nil, nil, nil],  // FAILED
        [nil, nil, nil, nil, nil, nil, nil],  // CANCELLED
    ]

    /// The meaning of going `from` one phase `to` another; nil when that is illegal.
    ///
    /// - Parameter isNewAttempt: the attempt number rises with this change; then only QUEUED may follow, and only what
    ///   has not ended may be queued again (a retry of an ended job is a new job).
    public static func between(_ from: Phase, _ to: Phase, isNewAttempt: Bool = false) -> PhaseTransition? {
        guard isNewAttempt else { return withinAttempt[from.rank][to.rank] }
        return to == .queued && !from.isTerminal ? .requeue : nil
    }
}
