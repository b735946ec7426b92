import FoundationEssentials

/// One event as a live client received it: the JSON, what tests ask of it most, and when it came.
public struct ReceivedEvent: Sendable, CustomStringConvertible {
    private struct Members: Decodable {
        struct Problem: Decodable {
            let code: String?
        }

        let job: String?
        let seq: Int?
        let type: String?
        let phase: String?
        let percent: Double?
        let attempt: Int?
        let stage: String?
        let at: Int?
        let queuePosition: Int?
        let error: Problem?

        enum CodingKeys: String, CodingKey {
            case job, seq, type, phase, percent, attempt, stage, at, error
            case queuePosition = "queue_position"
        }
    }

    /// The JSON text, byte for byte.
    public let text: String
    /// Read on the client's event loop, right after the socket.
    public let receivedAt: ContinuousClock.Instant
    /// `id:` of the block that carried it (event streams only).
    public let id: String?
    public let job: String?
    public let seq: Int?
    /// `type`; empty when the text is no event.
    public let type: String
    public let phase: String?
    public let percent: Double?
    public let attempt: Int?
    public let stage: String?
    /// Unix ms by the Redis clock.
    public let atMs: Int?
    public let queuePosition: Int?
    /// `error.code`
    public let errorCode: String?

    init(text: String, id: String? = nil) {
        self.text = text
        self.id = id
        receivedAt = .now
        let members = try? JSONDecoder().decode(Members.self, from: Data(text.utf8))
        job = members?.job
        seq = members?.seq
        type = members?.type ?? ""
        phase = members?.phase
        percent = members?.percent
        attempt = members?.attempt
        stage = members?.stage
        atMs = members?.at
        queuePosition = members?.queuePosition
        errorCode = members?.error?.code
    }

    /// `complete`, `failed` or `cancelled`.
    public var isTerminal: Bool { type == "complete" || type == "failed" || type == "cancelled" }

    /// Phase, stage or end.
    public var isMilestone: Bool { isTerminal || type == "phase" || type == "stage" }

    public var description: String { text }
}
