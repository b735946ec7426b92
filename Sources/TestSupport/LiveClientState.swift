import Synchronization

/// What a live client has received so far; written on its event loop, read by the test.
final class LiveClientState: Sendable {
    struct Content {
        var events: [ReceivedEvent] = []
        /// How far `next` has come.
        var position = 0
        var isOpen = false
        var isClosed = false
        var failure: String?
        var status: Int?
        var head = ""
        var closeCode: UInt16?
        var closeReason = ""
        var pings = 0
        var comments = 0
        var retryMs: Int?
        var lastEventID: String?
        var overflowed = false
    }

    /// Events kept per client: a test that receives more should say so, not eat the machine.
    static let maximumEvents = 200_000

    let content = Mutex(Content())

    func append(_ event: ReceivedEvent) {
        content.withLock {
            guard $0.events.count < Self.maximumEvents else { return $0.overflowed = true }
            $0.events.append(event)
        }
    }

    /// The next event that `predicate` accepts; those before it are passed over.
    func next(within limit: Duration, where predicate: (ReceivedEvent) -> Bool) async throws -> ReceivedEvent {
        let deadline = ContinuousClock.now.advanced(by: patience(limit))
        while true {
            let (found, isOver) = content.withLock { content -> (ReceivedEvent?, Bool) in
                while content.position < content.events.count {
                    let event = content.events[content.position]
                    content.position += 1
                    if predicate(event) { return (event, false) }
                }
                return (nil, content.isClosed)
            }
            if let found { return found }
            if isOver { throw TestSupportError(.process, "the connection ended; received:\n\(tail)") }
            guard ContinuousClock.now < deadline else {
                throw TestSupportError(.timedOut, "no such event within \(limit); received:\n\(tail)")
            }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    private var tail: String { content.withLock { $0.events.suffix(8).map(\.text).joined(separator: "\n") } }
}
