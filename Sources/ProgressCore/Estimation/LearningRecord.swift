/// What one finished job teaches: everything that its worker knows and the store does not.
///
/// The store only decays and adds; whatever depends on the prediction at the job's start was computed by the worker. So
/// records of different jobs may arrive in any order, up to the forgetting between them.
public struct LearningRecord: Sendable, Hashable {
    /// One field to decay and add to.
    public struct Addition: Sendable, Hashable {
        public enum Terms: Sendable, Hashable {
            case values([Double])
            /// One more in a bin of a histogram of `width` bins.
            case bin(Int, width: Int)
        }
        public var field: String
        /// What the old values count from now on.
        public var decay: Double
        public var terms: Terms

        public init(field: String, decay: Double, terms: Terms) {
            self.field = field
            self.decay = decay
            self.terms = terms
        }
    }

    public var additions: [Addition] = []
    /// How many σ the true rest was from an estimate in each eighth of the job; nil: none was made.
    public var deviations = [Double?](repeating: nil, count: IntervalCalibration.buckets)
    public var worker: String
    /// Logarithm of how much longer the job took than the stages' sums predict; nil when they do not know enough.
    public var workerError: Double?
    /// The stages in the order they came, when the job had not announced them.
    public var route: StageRoute?

    public init(worker: String) { self.worker = worker }

    /// True when nothing would change.
    public var isEmpty: Bool { additions.isEmpty }
}

/// The names of a job's stages in order; joined by `|`, which no name holds.
public struct StageRoute: Sendable, Hashable {
    public let text: String

    /// Nil for none, and for more than is worth keeping.
    public init?(_ names: [String]) {
        guard !names.isEmpty, names.count <= ProgressLimits.stages else { return nil }
        self.init(text: names.joined(separator: "|"))
    }

    init?(text: String) {
        let isClean = text.utf8.allSatisfy { $0 == UInt8(ascii: "|") || StageName.isAllowed($0) }
        guard text.utf8.count <= ProgressLimits.routeBytes, isClean else { return nil }
        self.text = text
    }

    public var names: [String] { text.split(separator: "|", omittingEmptySubsequences: false).map(String.init) }
}
