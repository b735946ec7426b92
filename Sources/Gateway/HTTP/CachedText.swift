import Synchronization

/// A text that is costly to make and may be a little old. While one caller makes it anew, the others get the last one.
final class CachedText: Sendable {
    private struct State {
        var text: String?
        var madeAt: ContinuousClock.Instant?
        var isBeingMade = false
    }

    private let age: Duration
    private let state = Mutex(State())
    private let make: @Sendable () async throws -> String

    /// - Parameter age: how old an answer may be.
    init(age: Duration, make: @escaping @Sendable () async throws -> String) {
        self.age = age
        self.make = make
    }

    func text() async throws -> String {
        let known = state.withLock { state -> String? in
            if let text = state.text, let madeAt = state.madeAt, state.isBeingMade || .now - madeAt < age { return text }
            state.isBeingMade = true
            return nil
        }
        if let known { return known }
        do {
            let text = try await make()
            state.withLock { $0 = State(text: text, madeAt: .now) }
            return text
        } catch {
            // What is known may be wrong by now: the next one asks again, and is told if that fails.
            state.withLock { $0 = State() }
            throw error
        }
    }
}
