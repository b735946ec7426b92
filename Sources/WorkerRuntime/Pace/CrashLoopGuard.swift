/// What the end of a job says about the worker that ran it.
enum HealthSign: Hashable {
    /// The generator ran: it ended well, or after a while, or judged its input itself.
    case well
    /// It failed at once.
    case failedAtOnce(code: String)
    /// It could not even be started; the job was handed back.
    case couldNotStart(message: String)
    /// Cancelled, lost or handed back: it says nothing.
    case unclear
}

/// Slows a worker down whose jobs fail at once, one after another: a missing library must not burn a whole queue.
struct CrashLoopGuard {
    struct Pause: Hashable {
        let untilMs: Int
        /// For people: shown with the worker.
        let reason: String
        /// The command could not be started: it is looked at again before the next claim.
        let isForStart: Bool
    }

    private var failures = 0
    private var starts = 0
    private(set) var pause: Pause?

    /// Notes how a job ended. `random` is in 0..<1.
    mutating func note(_ sign: HealthSign, nowMs: Int, random: @autoclosure () -> Double) {
        switch sign {
        case .unclear: break
        case .well:
            failures = 0
            starts = 0
            pause = nil
        case .couldNotStart(let message):
            // Jobs that were started together fail together: that is one step.
            guard pause.map({ nowMs >= $0.untilMs || !$0.isForStart }) ?? true else { return }
            starts += 1
            pause = Pause(untilMs: nowMs + Self.delay(step: starts - 1, random()), reason: message, isForStart: true)
        case .failedAtOnce(let code):
            guard pause.map({ nowMs >= $0.untilMs }) ?? true else { return }
            failures += 1
            let step = failures - WorkerLimits.instantFailures
            guard step >= 0 else { return }
            pause = Pause(
                untilMs: nowMs + Self.delay(step: step, random()),
                reason: "\(failures) jobs in a row failed at once, the last with \(code)",
                isForStart: false
            )
        }
    }

    /// The pause is over and the worker goes on.
    mutating func resume() { pause = nil }

    private static func delay(step: Int, _ random: Double) -> Int {
        let range = WorkerLimits.crashLoopDelayMs
        let bound = min(range.lowerBound << min(step, 16), range.upperBound)
        return bound / 2 + Int(Double(bound / 2) * random)
    }
}
