import JobStore
import Testing

struct PooledRandomTests {
    /// Numbers of one pool, drawn by several threads at once: each is given to one of them, and none is left behind as a zero.
    @Test func noNumberIsGivenTwice() async {
        let numbers = await withTaskGroup(of: [UInt64].self) { group in
            for _ in 0..<8 { group.addTask { (0..<5000).map { _ in PooledRandom().next() } } }
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect(Set(numbers).count == 40_000)
        #expect(!numbers.contains(0))
        // 64 fair bits: each is set in about half of them, five standard deviations either way.
        for bit in 0..<64 {
            let count = numbers.count { $0 >> UInt64(bit) & 1 == 1 }
            #expect(abs(count - 20_000) < 500, "bit \(bit): \(count)")
        }
    }
}
