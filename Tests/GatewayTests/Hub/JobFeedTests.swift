import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

struct JobFeedTests {
    private func event(_ seq: Int, _ kind: OutboundEvent.Kind = .state, text: String = "") -> OutboundEvent {
        OutboundEvent(
            kind: kind,
            seq: seq,
            phase: kind == .terminal ? .complete : .generating,
            body: ByteBuffer(string: "{\"seq\":\(seq)\(text)}")
        )
    }

    private func feed(at seq: Int) -> JobFeed {
        var feed = JobFeed()
        _ = feed.read(head: event(seq), issuedAt: 0, isWatched: false)
        return feed
    }

    @Test func passesOnWhatIsNextInLine() {
        var feed = feed(at: 3)
        #expect(feed.receive(event(4), heldLimit: 8) == .forward)
        #expect(feed.receive(event(5, .terminal), heldLimit: 8) == .forward)
        #expect(feed.seq == 5)
    }

    @Test func ignoresCopiesAndSuspectsOldNews() {
        var feed = feed(at: 3)
        #expect(feed.receive(event(3), heldLimit: 8) == .ignore)
        #expect(feed.receive(event(3, text: ",\"other\":1"), heldLimit: 8) == .suspicious)
        #expect(feed.receive(event(2), heldLimit: 8) == .suspicious)
    }

    @Test func holdsWhatStandsBehindAGapUntilItIsFilled() {
        var feed = feed(at: 3)
        #expect(feed.receive(event(6), heldLimit: 8) == .hold)
        #expect(feed.receive(event(7), heldLimit: 8) == .hold)
        #expect(feed.receive(event(0, .lossy), heldLimit: 8) == .ignore)
        #expect(feed.read(head: event(7), issuedAt: 3, isWatched: true) == .behind(after: 3))
        #expect(feed.receive(event(8), heldLimit: 8) == .hold)
        let (forward, again) = feed.fill(milestones: [event(5, .milestone)])
        #expect(forward.map(\.seq) == [5, 7])
        #expect(again.map(\.seq) == [8])
        #expect(feed.receive(again[0], heldLimit: 8) == .forward)
    }

    @Test func readsAGapAgainWhenHeldEventsHaveOne() {
        var feed = feed(at: 3)
        _ = feed.receive(event(5), heldLimit: 8)
        _ = feed.read(head: event(5), issuedAt: 3, isWatched: true)
        _ = feed.receive(event(8), heldLimit: 8)
        let (forward, again) = feed.fill(milestones: [])
        #expect(forward.map(\.seq) == [5])
        #expect(feed.receive(again[0], heldLimit: 8) == .hold)
        #expect(feed.isBroken)
    }

    @Test func noticesThatHistoryWentBack() {
        var feed = feed(at: 40)
        #expect(feed.read(head: event(37), issuedAt: 40, isWatched: true) == .reset)
        #expect(feed.seq == 37)
        #expect(feed.receive(event(38), heldLimit: 8) == .forward)
        #expect(feed.read(head: event(38, text: ",\"other\":1"), issuedAt: 38, isWatched: true) == .reset)
    }

    @Test func anOvertakenReadIsNoReset() {
        var feed = feed(at: 40)
        _ = feed.receive(event(41), heldLimit: 8)
        #expect(feed.read(head: event(40), issuedAt: 40, isWatched: true) == .unclear)
        #expect(feed.read(head: nil, issuedAt: 40, isWatched: true) == .unclear)
        #expect(feed.seq == 41)
    }

    @Test func tellsGoneFromAbsent() {
        var feed = JobFeed()
        #expect(feed.read(head: nil, issuedAt: 0, isWatched: false) == .absent)
        _ = feed.read(head: event(2), issuedAt: 0, isWatched: false)
        #expect(feed.read(head: nil, issuedAt: 2, isWatched: true) == .gone)
        #expect(feed.newest == nil)
    }

    @Test func takesTheNewestOfHeadAndEventsAsItsBeginning() {
        var feed = JobFeed()
        #expect(feed.receive(event(5), heldLimit: 8) == .hold)
        #expect(feed.receive(event(6), heldLimit: 8) == .hold)
        #expect(feed.read(head: event(5), issuedAt: 0, isWatched: false) == .adopted)
        #expect(feed.seq == 6)
    }

    @Test func keepsABoundedNumberOfHeldEvents() {
        var feed = feed(at: 1)
        for seq in 3...500 { _ = feed.receive(event(seq), heldLimit: 16) }
        #expect(feed.heldCount <= 16)
    }

    /// Lossy channel, late reads, copies: order, every milestone, and the newest state in the end.
    @Test(.timeLimit(.minutes(5))) func keepsOrderAndMilestonesOverALossyChannel() {
        for seed in UInt64(1)...5000 {
            var generator = SeededGenerator(seed: seed)
            let count = Int.random(in: 2...80, using: &generator)
            let history = (1...count).map { event($0, $0 == count ? .terminal : generator.chance(25) ? .milestone : .state) }
            var feed = feed(at: 1)
            var forwarded: [Int] = []
            var published = 1
            func deliver(_ event: OutboundEvent) {
                if feed.receive(event, heldLimit: 8) == .forward { forwarded.append(event.seq) }
            }
            func read() {
                let issued = feed.seq
                let head = history[published - 1]
                var later: [OutboundEvent] = []
                while generator.chance(30), published < count {
                    published += 1
                    if generator.chance(70) { later.append(history[published - 1]) }
                }
                later.forEach(deliver)
                let known = feed.seq
                if case .behind(let after) = feed.read(head: event(head.seq, head.kind), issuedAt: issued, isWatched: true) {
                    let list = history[..<published].filter { $0.kind != .state && $0.seq > after }
                    if generator.chance(50), published < count {
                        published += 1
                        deliver(history[published - 1])
                    }
                    let (forward, again) = feed.fill(milestones: list)
                    forwarded += forward.map(\.seq).filter { $0 > known }
                    again.forEach(deliver)
                }
            }
            while published < count {
                published += 1
                if generator.chance(80) { deliver(history[published - 1]) }
                if generator.chance(5) { deliver(history[published - 1]) }
                if feed.isBroken, generator.chance(50) { read() }
            }
            for _ in 0..<4 { read() }
            #expect(zip(forwarded, forwarded.dropFirst()).allSatisfy { $0 < $1 }, "seed \(seed): \(forwarded)")
            let milestones = history.filter { $0.kind != .state && $0.seq > 1 }.map(\.seq)
            #expect(Set(forwarded).isSuperset(of: milestones), "seed \(seed): \(milestones) not all in \(forwarded)")
            #expect(forwarded.last == count, "seed \(seed)")
        }
    }
}
