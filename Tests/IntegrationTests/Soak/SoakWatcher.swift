import FoundationEssentials
import JobStore
import NIOCore
import ProgressCore
import RedisLink
import Synchronization

/// Hears every event of every job and holds it against what a watcher may rely on.
final class SoakWatcher: RedisSubscriberDelegate {
    struct Trace: Sendable {
        var seq = 0
        var attempt = 1
        var percent = 0.0
        var rank = 0
        var end: Phase?
        /// Who says, in its result, that it finished the job.
        var finisher: Finisher?
    }

    struct Finisher: Decodable, Sendable, Hashable {
        let worker: String
        let attempt: Int
    }

    private struct Event: Decodable {
        let percent: Double
        let attempt: Int
        let result: Finisher?
    }

    private struct State {
        var traces: [String: Trace] = [:]
        var violations: [String] = []
        var ended = 0
        var events = 0
        var losses = 0
    }

    private let state = Mutex(State())
    private let keys = Keys()

    var endedCount: Int { state.withLock { $0.ended } }
    var eventCount: Int { state.withLock { $0.events } }
    /// The first of what should never have been heard.
    var violations: [String] { state.withLock { $0.violations } }
    func trace(_ job: String) -> Trace? { state.withLock { $0.traces[job] } }

    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) {
        guard let job = keys.job(ofChannel: channel)?.text else { return }
        guard let event = LiveEvent(payload: payload) else { return complain("\(job): a message that is no event") }
        guard event.kind != .lossy else { return }
        guard let body = try? JSONDecoder().decode(Event.self, from: Data(event.body.readableBytesView)) else {
            return complain("\(job): a body that is no event: \(String(buffer: event.body))")
        }
        state.withLock { state in
            state.events += 1
            var trace = state.traces[job] ?? Trace()
            if let problem = Self.problem(&trace, event, body) {
                state.violations.append("\(job): \(problem), at \(String(buffer: event.body))")
            }
            if event.kind == .terminal { state.ended += 1 }
            state.traces[job] = trace
        }
    }

    private static func problem(_ trace: inout Trace, _ event: LiveEvent, _ body: Event) -> String? {
        defer {
            trace.seq = event.seq
            trace.attempt = body.attempt
            trace.percent = body.percent
            trace.rank = event.phase.rank
            if event.kind == .terminal { (trace.end, trace.finisher) = (event.phase, body.result) }
        }
        if let end = trace.end { return "news after its end \(end)" }
        if event.seq != trace.seq + 1 { return "seq \(event.seq) after \(trace.seq)" }
        if body.attempt < trace.attempt { return "attempt \(body.attempt) after \(trace.attempt)" }
        if body.attempt == trace.attempt {
            if body.percent < trace.percent { return "percent \(body.percent) after \(trace.percent)" }
            if event.phase.rank < trace.rank { return "a phase before the last" }
        } else if event.phase != .queued {
            return "a new attempt that does not begin in the line"
        }
        if event.phase == .complete, body.result?.attempt != body.attempt { return "finished by the owner of another attempt" }
        return nil
    }

    private func complain(_ text: String) { state.withLock { $0.violations.append(text) } }

    /// Its own link must not break: then it would have missed events.
    func redisSubscriptionsLost() { complain("the watcher's own link was lost") }
    func redisSubscriptionsRestored() {}
    func redisReadComplete() {}
}
