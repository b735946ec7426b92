/// How one watch ended, and what a script sees of it.
enum JobEnd: Sendable, Equatable {
    case complete
    case failed
    case cancelled
    /// The job is not known, or no longer.
    case absent
    /// No word from the gateway for too long.
    case linkLost
    /// The gateway will never answer this watch (wrong address, not allowed).
    case refused(CommandError)

    var exitCode: Int32 {
        switch self {
        case .complete: 0
        case .failed: 1
        case .cancelled: 3
        case .absent: 4
        case .linkLost: 5
        case .refused(let error): error.code.rawValue
        }
    }

    /// Larger is worse. A job that failed is worse than one that was stopped on purpose; not knowing is worse than both.
    private var severity: Int {
        switch self {
        case .complete: 0
        case .cancelled: 1
        case .failed: 2
        case .absent: 3
        case .linkLost: 4
        case .refused: 5
        }
    }

    /// The exit code for several jobs: that of the worst end.
    static func exitCode(ofWorst ends: [JobEnd]) -> Int32 {
        ends.max { $0.severity < $1.severity }?.exitCode ?? 0
    }
}
