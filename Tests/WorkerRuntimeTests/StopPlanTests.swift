import TestSupport
import Testing

@testable import WorkerRuntime

@Suite struct StopPlanTests {
    @Test func aGoodEndFinishesWhenThePipesAreClosed() {
        var plan = StopPlan(graceMs: 1000)
        let before = plan.next(atMs: 0, areAllPipesClosed: false)
        #expect(before == nil)
        plan.leaderExited(atMs: 10)
        let open = plan.next(atMs: 20, areAllPipesClosed: false)
        #expect(open == nil)
        let closed = plan.next(atMs: 21, areAllPipesClosed: true)
        #expect(closed == .finish)
    }

    @Test func descendantsThatLingerGetAShortTime() {
        var plan = StopPlan(graceMs: 1000)
        plan.leaderExited(atMs: 10)
        let early = plan.next(atMs: 2009, areAllPipesClosed: false)
        #expect(early == nil)
        let late = plan.next(atMs: 2010, areAllPipesClosed: false)
        #expect(late == .finish)
    }

    @Test func aStopIsTermThenKillThenGivenUp() {
        var plan = StopPlan(graceMs: 1000)
        plan.askStop(atMs: 100)
        plan.askStop(atMs: 900)
        let actions = [100, 101, 1099, 1100, 1101, 61_099, 61_100].map { plan.next(atMs: $0, areAllPipesClosed: false) }
        #expect(actions == [.terminate, nil, nil, .kill, nil, nil, .abandon])
    }

    @Test func afterAStopDescendantsKeepTheGrace() {
        var plan = StopPlan(graceMs: 1000)
        plan.askStop(atMs: 0)
        let first = plan.next(atMs: 0, areAllPipesClosed: false)
        #expect(first == .terminate)
        plan.leaderExited(atMs: 5)
        let within = plan.next(atMs: 999, areAllPipesClosed: false)
        #expect(within == nil)
        let after = plan.next(atMs: 1000, areAllPipesClosed: false)
        #expect(after == .finish)
    }

    /// Whatever happens in whatever order, a plan ends, and its deadline is never missed.
    @Test func everyPlanEnds() {
        for seed in 0..<3000 {
            var random = SeededGenerator(seed)
            var plan = StopPlan(graceMs: Int.random(in: 0...5000, using: &random))
            var isOver = false
            var terminated = 0
            var now = 0
            let stopAt = Int.random(in: 0...2000, using: &random)
            let exitAt = random.chance(80) ? Int.random(in: 0...10_000, using: &random) : Int.max
            for _ in 0..<2000 where !isOver {
                if now >= stopAt { plan.askStop(atMs: now) }
                if now >= exitAt { plan.leaderExited(atMs: now) }
                while let action = plan.next(atMs: now, areAllPipesClosed: false) {
                    if action == .terminate { terminated += 1 }
                    isOver = action == .finish || action == .abandon
                    if isOver { break }
                }
                now += Int.random(in: 1...200, using: &random)
            }
            #expect(isOver && terminated <= 1, "seed \(seed)")
        }
    }
}
