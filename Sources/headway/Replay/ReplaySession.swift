import FoundationEssentials
import ProgressCore

/// The jobs of one replay, and what was learned from those that ended.
struct ReplaySession {
    struct Problem: Error {
        let message: String
    }

    private struct Running {
        let trace: TraceJob
        var tracker: ProgressTracker
        /// Time of its last line, in seconds.
        var seen = -1.0
    }

    private struct Message: Decodable {
        var op: String
        var job: Int?
        var stage: String?
        var value: Double?
        var t: Double?
    }

    private var statistics: [String: LearnedStatistics] = [:]
    private var running: [Int: Running] = [:]
    /// Job number by what is known of it again when it is complete.
    private var numbers: [String: Int] = [:]
    private let decoder = JSONDecoder()

    /// Takes one line, and gives the answer to a query.
    mutating func take(_ line: String) throws(Problem) -> String? {
        let message: Message = try decode(line)
        switch message.op {
        case "start": try start(decode(line), job: message.job)
        case "stage_start", "tick", "stage_end": try advance(message)
        case "query": return try answer(message)
        case "complete": complete(try decode(line))
        default: throw Problem(message: "unknown op '\(message.op.prefix(40))'")
        }
        return nil
    }

    private func decode<T: Decodable>(_ line: String) throws(Problem) -> T {
        do {
            return try decoder.decode(T.self, from: Data(line.utf8))
        } catch {
            throw Problem(message: "is not what the protocol says: \(error)")
        }
    }

    private mutating func start(_ trace: TraceJob, job: Int?) throws(Problem) {
        guard let job else { throw Problem(message: "start needs a job number") }
        guard running.count < Limits.replayedJobs else { throw Problem(message: "more than \(Limits.replayedJobs) jobs are open") }
        running[job] = Running(trace: trace, tracker: trace.tracker(statistics[trace.pipeline] ?? LearnedStatistics()))
        numbers[trace.key] = job
    }

    private mutating func advance(_ message: Message) throws(Problem) {
        guard let job = message.job, let trace = running[job]?.trace else { throw Problem(message: "no such job is open") }
        guard let stage = message.stage, let t = message.t else { throw Problem(message: "\(message.op) needs stage and t") }
        running[job]?.seen = t
        switch message.op {
        case "stage_start": running[job]?.tracker.apply(ProgressUpdate(stage: stage), atMs: TraceTime.ms(t))
        case "tick":
            let update = TraceTime.tick(stage, value: message.value ?? 0, units: trace.units(of: stage))
            running[job]?.tracker.apply(update, atMs: TraceTime.ms(t))
        default:
            // A worker hears of the end of a stage by the next one's beginning, or by the end of the job.
            break
        }
    }

    private mutating func answer(_ message: Message) throws(Problem) -> String {
        guard let job = message.job, let t = message.t, let state = running[job]?.tracker.state(atMs: TraceTime.ms(t)) else {
            throw Problem(message: "query needs t and the number of an open job")
        }
        // Whoever asks is a watcher.
        running[job]?.tracker.published(state, atMs: TraceTime.ms(t))
        func seconds(_ ms: Int?) -> String { ms.map { "\(Double($0) / 1000)" } ?? "null" }
        return
            "{\"p\": \(state.percent / 100), \"eta\": \(seconds(state.etaMs)), \"lo\": \(seconds(state.etaLowMs)), "
            + "\"hi\": \(seconds(state.etaHighMs))}"
    }

    private mutating func complete(_ trace: TraceJob) {
        let number = numbers.removeValue(forKey: trace.key)
        var job = number.flatMap { running.removeValue(forKey: $0) }
        if job == nil {
            // Nobody asked during this job: it is played as its worker would have.
            job = Running(trace: trace, tracker: trace.tracker(statistics[trace.pipeline] ?? LearnedStatistics()))
        }
        guard var job else { return }
        for event in trace.events where event.t > job.seen {
            job.tracker.apply(event.update, atMs: TraceTime.ms(event.t))
            if number == nil { _ = job.tracker.state(atMs: TraceTime.ms(event.t)) }
        }
        statistics[trace.pipeline, default: LearnedStatistics()].learn(job.tracker.finish(atMs: TraceTime.ms(trace.duration)))
    }
}
