import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

struct DeliveryStateTests {
    private func event(_ kind: OutboundEvent.Kind, _ seq: Int, phase: Phase = .generating) -> OutboundEvent {
        OutboundEvent(kind: kind, seq: seq, phase: phase, body: ByteBuffer(string: "{\"seq\":\(seq)}"))
    }

    @Test func writesWhatIsNewerAndDropsTheRest() {
        var state = DeliveryState(cursor: 5)
        #expect(state.offer(event(.state, 5), isReady: true, queueLimit: 4) == .dropStale)
        #expect(state.offer(event(.state, 7), isReady: true, queueLimit: 4) == .write)
        #expect(state.offer(event(.milestone, 6), isReady: true, queueLimit: 4) == .dropStale)
        #expect(state.delivered == 7)
    }

    @Test func keepsOneStateForAStalledSocketTheNewest() {
        var state = DeliveryState()
        #expect(state.offer(event(.state, 1), isReady: false, queueLimit: 4) == .hold)
        #expect(state.offer(event(.state, 2), isReady: false, queueLimit: 4) == .conflate)
        #expect(state.offer(event(.lossy, 0), isReady: false, queueLimit: 4) == .dropLossy)
        #expect(state.next()?.seq == 2)
        #expect(state.next() == nil)
    }

    @Test func aMilestoneDropsTheOlderState() {
        var state = DeliveryState()
        _ = state.offer(event(.state, 1), isReady: false, queueLimit: 4)
        #expect(state.offer(event(.milestone, 2), isReady: false, queueLimit: 4) == .conflate)
        _ = state.offer(event(.state, 3), isReady: false, queueLimit: 4)
        #expect([state.next()?.seq, state.next()?.seq, state.next()?.seq] == [2, 3, nil])
    }

    @Test func theEndPassesOnceAndIsFinal() {
        var state = DeliveryState(cursor: 9)
        #expect(state.offer(event(.terminal, 9, phase: .complete), isReady: true, queueLimit: 4) == .write)
        #expect(state.isDone)
        #expect(state.offer(event(.terminal, 9, phase: .complete), isReady: true, queueLimit: 4) == .dropStale)
        #expect(state.offer(event(.reset, 3), isReady: true, queueLimit: 4) == .dropStale)

        var stalled = DeliveryState()
        #expect(stalled.offer(event(.terminal, 4, phase: .failed), isReady: false, queueLimit: 4) == .hold)
        #expect(!stalled.isDone)
        #expect(stalled.offer(event(.state, 5), isReady: false, queueLimit: 4) == .dropStale)
        #expect(stalled.next()?.seq == 4)
        #expect(stalled.isDone)
    }

    @Test func resetLowersTheFloorAndForgetsWhatWaits() {
        var state = DeliveryState(cursor: 40)
        _ = state.offer(event(.milestone, 41), isReady: false, queueLimit: 4)
        #expect(state.offer(event(.reset, 37), isReady: false, queueLimit: 4) == .hold)
        #expect(state.offer(event(.state, 37), isReady: false, queueLimit: 4) == .hold)
        #expect(state.next()?.kind == .reset)
        #expect(state.next()?.seq == 37)
        #expect(state.delivered == 37)
    }

    @Test func tooManyMilestonesAskForACatchUp() {
        var state = DeliveryState(cursor: 1)
        for seq in 2...5 { #expect(state.offer(event(.milestone, seq), isReady: false, queueLimit: 4) == .hold) }
        #expect(state.offer(event(.milestone, 6), isReady: false, queueLimit: 4) == .resync)
        #expect(state.needsResync)
        #expect(state.waitingCount == 0)
        #expect(state.delivered == 1)
        #expect(state.offer(event(.milestone, 7), isReady: true, queueLimit: 4) == .dropStale)
        state.restart(at: state.delivered)
        #expect(state.offer(event(.milestone, 2), isReady: true, queueLimit: 4) == .write)
    }

    @Test func theNewestPlaceInLineWaitsUntilTheJobLeavesTheLine() {
        var state = DeliveryState()
        #expect(state.offer(event(.queue, 0, phase: .queued), isReady: false, queueLimit: 4) == .hold)
        #expect(state.offer(event(.queue, 0, phase: .queued), isReady: false, queueLimit: 4) == .conflate)
        #expect(state.waitingCount == 1)
        _ = state.offer(event(.milestone, 2, phase: .analyzing), isReady: false, queueLimit: 4)
        #expect(state.next()?.seq == 2)
        #expect(state.next() == nil)
    }

    /// Any history, any stalls: order, all milestones, one end, bounded waiting.
    @Test(.timeLimit(.minutes(5))) func keepsItsPromisesInEveryHistory() {
        for seed in UInt64(1)...20_000 {
            var generator = SeededGenerator(seed: seed)
            let limit = Int.random(in: 1...6, using: &generator)
            var state = DeliveryState()
            var written: [OutboundEvent] = []
            var milestones: [Int] = []
            let last = Int.random(in: 1...60, using: &generator)
            var history: [OutboundEvent] = []
            for seq in 1...last {
                let isLast = seq == last
                let kind: OutboundEvent.Kind = isLast ? .terminal : generator.chance(30) ? .milestone : .state
                history.append(event(kind, seq, phase: isLast ? .complete : .generating))
                if kind != .state { milestones.append(seq) }
            }
            var isReady = true
            var resyncs = 0
            for event in history {
                if generator.chance(20) { isReady.toggle() }
                if isReady {
                    drain(&state, history, upTo: event.seq - 1, into: &written, &resyncs, limit)
                }
                if state.offer(event, isReady: isReady, queueLimit: limit) == .write { written.append(event) }
                #expect(state.waitingCount <= limit + 2, "seed \(seed)")
                #expect(state.delivered <= state.accepted, "seed \(seed)")
            }
            drain(&state, history, upTo: last, into: &written, &resyncs, limit)
            let seqs = written.map(\.seq)
            #expect(zip(seqs, seqs.dropFirst()).allSatisfy { $0 < $1 }, "seed \(seed): \(seqs)")
            #expect(Set(seqs).isSuperset(of: milestones), "seed \(seed): \(milestones) not all in \(seqs)")
            #expect(written.filter { $0.kind == .terminal }.count == 1, "seed \(seed)")
            #expect(state.isDone, "seed \(seed)")
        }
    }

    /// Empties it to a ready socket, catching up from `history` where it asks for that.
    private func drain(
        _ state: inout DeliveryState,
        _ history: [OutboundEvent],
        upTo: Int,
        into written: inout [OutboundEvent],
        _ resyncs: inout Int,
        _ limit: Int
    ) {
        if state.needsResync {
            resyncs += 1
            let since = state.delivered
            state.restart(at: since)
            for event in history where event.seq > since && event.seq <= upTo && (event.kind != .state || event.seq == upTo) {
                if state.offer(event, isReady: true, queueLimit: limit) == .write { written.append(event) }
            }
        }
        while let event = state.next() { written.append(event) }
    }
}
