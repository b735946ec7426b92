import ProgressCore
import Testing

@testable import WorkerRuntime

@Suite struct LearnedCacheTests {
    @Test func whatWasReadIsUsedForAWhileAndNotAfterALesson() {
        let cache = LearnedCache()
        #expect(cache.statistics(of: "a", nowMs: 0) == nil)
        cache.note(LearnedStatistics(), of: "a", nowMs: 0)
        #expect(cache.statistics(of: "a", nowMs: WorkerLimits.learnedCacheMs - 1)?.isOld == false)
        #expect(cache.statistics(of: "b", nowMs: 0) == nil)
        #expect(cache.statistics(of: "a", nowMs: WorkerLimits.learnedCacheMs)?.isOld == true)
        // Somebody reads it now.
        #expect(cache.statistics(of: "a", nowMs: WorkerLimits.learnedCacheMs)?.isOld == false)
        cache.note(LearnedStatistics(), of: "a", nowMs: 20_000)
        cache.forget("a")
        #expect(cache.statistics(of: "a", nowMs: 20_000) == nil)
    }

    @Test func ofShortJobsOneInAWhileTeachesAndEveryLongOne() {
        let cache = LearnedCache()
        var lessons = 0
        for nowMs in stride(from: 0, to: 10_000, by: 10) where cache.takesLesson(of: "short", durationMs: 9, nowMs: nowMs) { lessons += 1 }
        #expect(lessons == 10_000 / WorkerLimits.shortJobMs)
        #expect(cache.takesLesson(of: "other", durationMs: 9, nowMs: 9_990))
        for nowMs in 0..<5 { #expect(cache.takesLesson(of: "short", durationMs: WorkerLimits.shortJobMs, nowMs: nowMs)) }
    }

    @Test func ofManyPipelinesOnlySoManyAreRemembered() {
        let cache = LearnedCache()
        for number in 0...WorkerLimits.learnedPipelines { cache.note(LearnedStatistics(), of: "p\(number)", nowMs: 0) }
        let known = (0...WorkerLimits.learnedPipelines).count { cache.statistics(of: "p\($0)", nowMs: 0) != nil }
        #expect((1...WorkerLimits.learnedPipelines).contains(known))
    }
}
