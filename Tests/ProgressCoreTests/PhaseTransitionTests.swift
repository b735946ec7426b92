import ProgressCore
import Testing

@Suite struct PhaseTransitionTests {
    @Test func everyPairWithinAnAttemptFollowsTheRules() {
        for from in Phase.allCases {
            for to in Phase.allCases {
                let expected: PhaseTransition? =
                    if from.isTerminal {
                        nil
                    } else if to.isTerminal {
                        .end
                    } else if to.rank == from.rank {
                        .stay
                    } else {
                        to.rank > from.rank ? .advance : nil
                    }
                #expect(PhaseTransition.between(from, to) == expected, "\(from) → \(to)")
            }
        }
    }

    @Test func aNewAttemptStartsInTheQueueAndNeverAfterAnEnd() {
        for from in Phase.allCases {
            for to in Phase.allCases {
                let isLegal = to == .queued && !from.isTerminal
                #expect(PhaseTransition.between(from, to, isNewAttempt: true) == (isLegal ? .requeue : nil), "\(from) → \(to)")
            }
        }
    }

    @Test func ranksAreTheDigitsOfTheWire() {
        #expect(Phase.allCases.map(\.rank) == Array(0...6))
        #expect(Phase.allCases.filter(\.isTerminal) == [.complete, .failed, .cancelled])
    }
}
