import FoundationEssentials
import Testing

/// What tests look at in an event.
struct WireEvent: Decodable, Sendable {
    let type: String
    let job: String?
    let seq: Int?
    let phase: String?
    let percent: Double?
    let attempt: Int?
    let at: Int?
    let etaMs: Int?
    let stalled: Bool?

    enum CodingKeys: String, CodingKey {
        case type, job, seq, phase, percent, attempt, at, stalled
        case etaMs = "eta_ms"
    }

    /// Parses JSON lines; a line that is no JSON object fails the test.
    static func lines(_ text: String) throws -> [WireEvent] {
        try text.split(separator: "\n").filter { $0.hasPrefix("{") }.map {
            try JSONDecoder().decode(WireEvent.self, from: Data($0.utf8))
        }
    }

    var isTerminal: Bool { ["complete", "failed", "cancelled"].contains(type) }
    var isMilestone: Bool { isTerminal || type == "phase" || type == "stage" }
}

/// What every watcher may rely on, whatever broke on the way.
func expectTruthful(_ all: [WireEvent], end: String, sourceLocation: SourceLocation = #_sourceLocation) {
    let events = all.filter { $0.seq != nil && $0.phase != nil }
    #expect(events.filter(\.isTerminal).count == 1, "exactly one end", sourceLocation: sourceLocation)
    #expect(events.last?.type == end, sourceLocation: sourceLocation)
    var last = (seq: 0, attempt: 1, percent: 0.0)
    for event in events {
        let now = (seq: event.seq ?? 0, attempt: event.attempt ?? 0, percent: event.percent ?? -1)
        #expect(now.seq > last.seq, "seq \(now.seq) after \(last.seq)", sourceLocation: sourceLocation)
        #expect(now.attempt >= last.attempt, sourceLocation: sourceLocation)
        if now.attempt == last.attempt {
            #expect(now.percent >= last.percent, "percent fell to \(now.percent) from \(last.percent)", sourceLocation: sourceLocation)
        }
        last = now
    }
}
