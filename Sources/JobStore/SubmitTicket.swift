import RedisLink
import Synchronization

/// Where one submit waits for its answer. Cancelling the task ends the wait at once; a job that was not sent by then never is.
final class SubmitTicket: Sendable {
    typealias Answer = Result<RESPValue, StoreError>

    private struct State {
        var isAboard = false
        var isDone = false
        var waiter: CheckedContinuation<Answer, Never>?
        /// Came before anybody waited.
        var answer: Answer?
    }

    private let state = Mutex(State())

    /// The answer, once. One task may wait.
    var answer: Answer {
        get async {
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let early = state.withLock { state -> Answer? in
                        if state.answer == nil { state.waiter = continuation }
                        return state.answer
                    }
                    if let early { continuation.resume(returning: early) }
                }
            } onCancel: {
                cancel()
            }
        }
    }

    /// True when the job is to be sent: somebody still wants it.
    func board() -> Bool {
        state.withLock { state in
            state.isAboard = !state.isDone
            return state.isAboard
        }
    }

    /// The first answer counts.
    func complete(_ answer: Answer) { finish { _ in answer } }

    private func cancel() {
        finish { state in .failure(StoreError(RedisError(.cancelled, "the task was cancelled", mayHaveRun: state.isAboard))) }
    }

    private func finish(_ answer: (State) -> Answer) {
        let resumed = state.withLock { state -> (CheckedContinuation<Answer, Never>, Answer)? in
            guard !state.isDone else { return nil }
            state.isDone = true
            let answer = answer(state)
            guard let waiter = state.waiter else {
                state.answer = answer
                return nil
            }
            state.waiter = nil
            return (waiter, answer)
        }
        if let (waiter, answer) = resumed { waiter.resume(returning: answer) }
    }
}
