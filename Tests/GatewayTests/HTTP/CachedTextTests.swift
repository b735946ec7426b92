import Synchronization
import Testing

@testable import Gateway

@Suite(.timeLimit(.minutes(1))) struct CachedTextTests {
    private struct Trouble: Error {}

    @Test func aFailureIsToldAndNotKept() async throws {
        let count = Atomic<Int>(0)
        let cache = CachedText(age: .seconds(3600)) {
            let number = count.add(1, ordering: .relaxed).newValue
            if number == 1 { throw Trouble() }
            return "\(number)"
        }
        await #expect(throws: Trouble.self) { try await cache.text() }
        #expect(try await cache.text() == "2")
        #expect(try await cache.text() == "2")
        let without = CachedText(age: .zero) { "\(count.add(1, ordering: .relaxed).newValue)" }
        #expect(try await without.text() == "3")
        #expect(try await without.text() == "4")
    }

    /// While one makes it anew, nobody waits.
    @Test func theLastOneServesWhileTheNextIsMade() async throws {
        let (gate, opener) = AsyncStream<Void>.makeStream()
        let count = Atomic<Int>(0)
        let cache = CachedText(age: .zero) {
            let number = count.add(1, ordering: .relaxed).newValue
            if number == 2 { for await _ in gate { break } }
            return "\(number)"
        }
        #expect(try await cache.text() == "1")
        async let slow = cache.text()
        while count.load(ordering: .relaxed) < 2 { await Task.yield() }
        for _ in 0..<100 { #expect(try await cache.text() == "1") }
        opener.finish()
        #expect(try await slow == "2")
    }
}
