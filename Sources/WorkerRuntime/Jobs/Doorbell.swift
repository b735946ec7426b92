import NIOCore
import Synchronization

/// Wakes one waiting task. Ringing before the wait counts; ringing twice is ringing once.
///
/// The time-out is a timer of the event loop: a worker sets and cancels several for each job.
final class Doorbell: Sendable {
    private struct Wait {
        let number: Int
        let continuation: CheckedContinuation<Void, Never>
        var timer: Scheduled<Void>?
    }

    private struct State {
        var isRung = false
        var waits = 0
        var waiting: Wait?
    }

    private let eventLoop: any EventLoop
    private let state = Mutex(State())

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func ring() { wake(orRemember: true) }

    /// Suspends until the bell rings, the time is over or the task is cancelled. One task at a time.
    func wait(atMost limit: Duration) async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let number = state.withLock { state -> Int? in
                    if state.isRung || Task.isCancelled {
                        state.isRung = false
                        return nil
                    }
                    state.waits += 1
                    state.waiting = Wait(number: state.waits, continuation: continuation, timer: nil)
                    return state.waits
                }
                guard let number else { return continuation.resume() }
                let timer = eventLoop.scheduleTask(in: TimeAmount(limit)) { self.wake(only: number) }
                let isOver = state.withLock { state in
                    guard state.waiting?.number == number else { return true }
                    state.waiting?.timer = timer
                    return false
                }
                if isOver { timer.cancel() }
            }
        } onCancel: {
            wake()
        }
    }

    /// - Parameter only: the wait that is over; nil for whichever there is.
    private func wake(only number: Int? = nil, orRemember: Bool = false) {
        let wait = state.withLock { state -> Wait? in
            // Rung again before anybody listened: often so, and nothing to look at.
            if state.isRung { return nil }
            guard let wait = state.waiting, number == nil || wait.number == number else {
                if orRemember { state.isRung = true }
                return nil
            }
            state.waiting = nil
            return wait
        }
        wait?.timer?.cancel()
        wait?.continuation.resume()
    }
}
