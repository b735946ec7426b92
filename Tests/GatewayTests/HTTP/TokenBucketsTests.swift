import TestSupport
import Testing

@testable import Gateway

@Suite struct TokenBucketsTests {
    @Test func aRestedBucketGivesItsBurstAndThenItsRate() {
        var buckets = TokenBuckets(perSecond: 20, burst: 40, most: 100)
        for _ in 0..<40 { #expect(buckets.take(1, nowMs: 0) == nil) }
        #expect(buckets.take(1, nowMs: 0) == 50)
        #expect(buckets.take(1, nowMs: 25) == 25)
        #expect(buckets.take(1, nowMs: 50) == nil)
        #expect(buckets.take(2, nowMs: 50) == nil, "another key has a bucket of its own")
        // A rest of two seconds fills it, no more.
        for _ in 0..<40 { #expect(buckets.take(1, nowMs: 100_000) == nil) }
        #expect(buckets.take(1, nowMs: 100_000) != nil)
    }

    /// Whatever happens, no key gets more than its burst and its rate, as long as fewer keys than half the table are in use.
    @Test func noKeyGetsMoreThanItsShare() {
        for seed in 0..<200 {
            var generator = SeededGenerator(seed: UInt64(seed))
            let rate = Double(Int.random(in: 1...50, using: &generator))
            let burst = Double(Int.random(in: 1...60, using: &generator))
            let keys = Int.random(in: 1...8, using: &generator)
            var buckets = TokenBuckets(perSecond: rate, burst: burst, most: 20)
            var taken = [Int: Int]()
            var now = 0
            for _ in 0..<2000 {
                now += Int.random(in: 0...30, using: &generator)
                let key = Int.random(in: 0..<keys, using: &generator)
                if let wait = buckets.take(key, nowMs: now) {
                    #expect(wait > 0 && Double(wait) <= 1000 / rate + 1)
                } else {
                    taken[key, default: 0] += 1
                }
            }
            for count in taken.values { #expect(Double(count) <= burst + rate * Double(now) / 1000 + 1e-6) }
        }
    }

    @Test func theTableStaysBounded() {
        var buckets = TokenBuckets(perSecond: 1, burst: 1, most: 50)
        var generator = SeededGenerator(seed: 5)
        for now in 0..<20_000 {
            _ = buckets.take(Int.random(in: 0..<1_000_000, using: &generator), nowMs: now)
            #expect(buckets.count <= 50)
        }
        // A key that is asked for often is not forgotten among strangers.
        var isFresh = TokenBuckets(perSecond: 0.001, burst: 1, most: 50)
        #expect(isFresh.take(-1, nowMs: 0) == nil)
        for stranger in 0..<1000 {
            _ = isFresh.take(stranger, nowMs: stranger)
            #expect(isFresh.take(-1, nowMs: stranger) != nil)
        }
    }
}
