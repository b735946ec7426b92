import JobStore
import ProgressCore
import TestSupport

/// What the contract says of one job and its workers' writes, as simply as it can be said; tests hold Redis against it.
struct HolderModel {
    enum Deed: Sendable, Equatable {
        case advance(tenths: Int)
        case heartbeat, log, release, askToCancel
        case finish(FinishOutcome)
        case fail(isRecoverable: Bool)

        /// - Parameter isLate: it is time that the job ends.
        static func random(_ random: inout SeededGenerator, isLate: Bool) -> Deed {
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<(isLate ? 20 : 55): .advance(tenths: Int.random(in: 0...999, using: &random) / Int.random(in: 1...4, using: &random))
            case ..<65: .heartbeat
            case ..<80: .log
            case ..<85: .release
            case ..<90: .fail(isRecoverable: true)
            case ..<92: .fail(isRecoverable: false)
            case ..<94: .askToCancel
            case ..<97: .finish(.cancelled)
            default: .finish(.complete)
            }
        }
    }

    enum Answer: Equatable {
        case none
        case advance(AdvanceOutcome)
        case lease(LeaseStatus)
        case finish(FinishStatus)
        case fail(FailStatus)
        case refused(StoreError.Code)
    }

    /// What Redis is to hold.
    struct Stored: Equatable {
        var phase: Phase = .queued
        var percent = "0.0"
        var phasePercent = "0.0"
        var seq = 1
        var attempt = 1
        var write: Int?

        init() {}

        init(_ fields: [String: String]) {
            phase = Phase(rawValue: fields["phase"] ?? "") ?? .queued
            percent = fields["percent"] ?? ""
            phasePercent = fields["phase_percent"] ?? ""
            seq = Int(fields["seq"] ?? "") ?? 0
            attempt = Int(fields["attempt"] ?? "") ?? 0
            write = fields["write_no"].flatMap(Int.init)
        }
    }

    private(set) var stored = Stored()
    private(set) var lines: [String] = []
    private var attempts = 2
    private var tenths = 0
    private var phaseTenths = 0
    private var fence: String?
    /// The last lease that ended, and what its holder is told again.
    private var last: (fence: String, outcome: Deed, answer: Answer)?
    private var isCancelAsked = false
    private var lastLine = ""

    var isEnded: Bool { stored.phase.isTerminal }
    var waits: Bool { !isEnded && fence == nil }

    mutating func claimed(_ fence: String) { self.fence = fence }

    mutating func act(_ deed: Deed, _ fence: String, write: Int) -> Answer {
        let isHeld = fence == self.fence
        let held: LeaseStatus = isCancelAsked ? .cancelRequested(TwoHoldersTests.request) : .held
        switch deed {
        case .advance(let tenths): return isHeld ? advance(tenths, write) : .advance(.lost)
        case .heartbeat: return .lease(isHeld ? held : .lost)
        case .log:
            let line = "\(fence) \(write)"
            // The same number as the newest: a repetition.
            if isHeld, line != lastLine {
                lines.append(line)
                lastLine = line
            }
            return .lease(isHeld ? held : .lost)
        case .askToCancel:
            // A waiting job is claimed before anything else is done.
            if !isEnded, !isCancelAsked {
                isCancelAsked = true
                stored.seq += 1
            }
            return .none
        case .finish, .fail, .release: return isHeld ? end(deed, fence) : again(deed, fence)
        }
    }

    private mutating func advance(_ tenths: Int, _ write: Int) -> Answer {
        let cancel = isCancelAsked ? TwoHoldersTests.request : nil
        guard write > stored.write ?? 0 else { return .advance(.accepted(seq: stored.seq, wasClamped: false, cancel: cancel)) }
        let phase: Phase = tenths < 200 ? .analyzing : tenths < 800 ? .generating : .postProcessing
        guard phase.rank >= stored.phase.rank else { return .refused(.invalid) }
        var wasClamped = tenths < self.tenths
        if phase == stored.phase, tenths < phaseTenths { wasClamped = true }
        phaseTenths = phase == stored.phase ? max(phaseTenths, tenths) : tenths
        self.tenths = max(self.tenths, tenths)
        stored.phase = phase
        show()
        stored.write = write
        stored.seq += 1
        return .advance(.accepted(seq: stored.seq, wasClamped: wasClamped, cancel: cancel))
    }

    private mutating func show() {
        stored.percent = "\(Double(tenths) / 10)"
        stored.phasePercent = "\(Double(phaseTenths) / 10)"
    }

    private mutating func end(_ deed: Deed, _ fence: String) -> Answer {
        let answer: Answer
        self.fence = nil
        stored.seq += 1
        stored.write = nil
        switch deed {
        case .finish(let end):
            stored.phase = end == .complete ? .complete : .cancelled
            if end == .complete {
                (tenths, phaseTenths) = (1000, 1000)
                show()
            }
            answer = .finish(.done)
        case .fail(let isRecoverable):
            if isRecoverable, stored.attempt < attempts, !isCancelAsked {
                // Half of 5 s, doubled with each attempt.
                let delayMs = 2500 << (stored.attempt - 1)
                startAgain(isNewAttempt: true)
                answer = .fail(.willRetry(attempt: stored.attempt, delayMs: delayMs))
            } else {
                stored.phase = isCancelAsked ? .cancelled : .failed
                answer = .fail(.dead)
            }
        default:
            if isCancelAsked {
                stored.phase = .cancelled
            } else {
                // Where nothing was shown the attempt goes on.
                let wasShown = stored.phase != .queued || tenths > 0
                if wasShown { attempts += 1 }
                startAgain(isNewAttempt: wasShown)
            }
            answer = .lease(.held)
        }
        last = (fence, deed, answer)
        return answer
    }

    private mutating func startAgain(isNewAttempt: Bool) {
        stored.phase = .queued
        if isNewAttempt { stored.attempt += 1 }
        (tenths, phaseTenths) = (0, 0)
        show()
    }

    /// Said by one that holds nothing: the same end again is answered as before, whoever says it.
    private func again(_ deed: Deed, _ fence: String) -> Answer {
        if let last, last.fence == fence {
            switch (deed, last.outcome) {
            case (.fail, .fail), (.release, .release): return last.answer
            case (.finish(let one), .finish(let other)) where one == other: return last.answer
            default: break
            }
        }
        switch deed {
        case .finish: return .finish(.lost)
        case .fail: return .fail(.lost)
        default: return .lease(.lost)
        }
    }
}
