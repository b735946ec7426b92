import NIOCore
import Synchronization

/// One or several encoded commands on their way to a connection, and who waits for the replies.
struct Submission: Sendable {
    enum Reply: Sendable {
        case one(RESPValue)
        case many([RESPValue])
    }

    enum Completion: Sendable {
        case waiter(ReplyWaiter)
        case promise(EventLoopPromise<RESPValue>)
    }

    let bytes: ByteBuffer
    /// Replies that will come back; 1 completes with `.one`.
    let replyCount: Int
    let deadline: NIODeadline
    let completion: Completion
    let budget: PendingBudget

    var cost: PendingBudget.Cost { .init(commands: replyCount, bytes: bytes.readableBytes) }

    /// True when nobody waits any more, so that the command need not be sent.
    var isAbandoned: Bool {
        if case .waiter(let waiter) = completion { waiter.isDone } else { false }
    }

    /// Exactly once for each submission, whatever became of it.
    func finish(_ result: Result<Reply, RedisError>) {
        budget.release(cost)
        completion.complete(result)
    }
}

extension Submission.Completion {
    func complete(_ result: Result<Submission.Reply, RedisError>) {
        switch self {
        case .waiter(let waiter): waiter.resume(result)
        case .promise(let promise):
            switch result {
            case .success(.one(.error(let text))): promise.fail(RedisError(serverReply: text))
            case .success(.one(let value)): promise.succeed(value)
            case .success(.many(let values)): promise.succeed(.array(values))
            case .failure(let error): promise.fail(error)
            }
        }
    }
}

extension RESPValue {
    /// An error reply as the error it stands for.
    var asResult: Result<RESPValue, RedisError> {
        if case .error(let text) = self { .failure(RedisError(serverReply: text)) } else { .success(self) }
    }
}

/// What all connections of one client may hold unanswered.
final class PendingBudget: Sendable {
    struct Cost {
        let commands: Int
        let bytes: Int
    }

    private let commands = Atomic<Int>(0)
    private let bytes = Atomic<Int>(0)
    private let commandsMax: Int
    private let bytesMax: Int

    init(limits: RedisLimits) {
        commandsMax = limits.pendingCommandsMax
        bytesMax = limits.pendingBytesMax
    }

    var pendingCommands: Int { commands.load(ordering: .relaxed) }

    /// Takes `cost`, or throws `.tooManyPending` and takes nothing.
    func acquire(_ cost: Cost) throws(RedisError) {
        let commandsNow = commands.wrappingAdd(cost.commands, ordering: .relaxed).newValue
        let bytesNow = bytes.wrappingAdd(cost.bytes, ordering: .relaxed).newValue
        guard commandsNow <= commandsMax, bytesNow <= bytesMax else {
            release(cost)
            throw RedisError(
                .tooManyPending,
                "\(commandsNow) commands (\(bytesNow) bytes) unanswered; at most \(commandsMax) (\(bytesMax)): Redis is too slow or gone"
            )
        }
    }

    func release(_ cost: Cost) {
        commands.wrappingSubtract(cost.commands, ordering: .relaxed)
        bytes.wrappingSubtract(cost.bytes, ordering: .relaxed)
    }
}

/// Hands one result from an event loop to one suspended task; cancelling the task wins over a result that is not there yet.
final class ReplyWaiter: Sendable {
    typealias Outcome = Result<Submission.Reply, RedisError>

    private enum State {
        case idle
        // Safety: resumed once by construction, as whoever takes it out of the state leaves another state behind.
        case waiting(UnsafeContinuation<Outcome, Never>)
        case done(Outcome?)
    }

    private let state = Mutex(State.idle)

    var isDone: Bool {
        state.withLock { if case .done = $0 { true } else { false } }
    }

    /// Suspends until ``resume(_:)``; `start` runs once the task can be resumed, unless it was cancelled before.
    func wait(_ start: () -> Void) async -> Outcome {
        await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                let early: Outcome? = state.withLock { state in
                    guard case .done(let outcome) = state else {
                        state = .waiting(continuation)
                        return nil
                    }
                    return outcome ?? .failure(Self.cancelled(mayHaveRun: false))
                }
                if let early { continuation.resume(returning: early) } else { start() }
            }
        } onCancel: {
            cancel()
        }
    }

    /// The first result counts; later ones are dropped.
    func resume(_ outcome: Outcome) {
        let continuation = state.withLock { state -> UnsafeContinuation<Outcome, Never>? in
            switch state {
            case .idle:
                state = .done(outcome)
                return nil
            case .waiting(let continuation):
                state = .done(nil)
                return continuation
            case .done: return nil
            }
        }
        continuation?.resume(returning: outcome)
    }

    private func cancel() {
        let continuation = state.withLock { state -> UnsafeContinuation<Outcome, Never>? in
            defer { state = .done(nil) }
            if case .waiting(let continuation) = state { return continuation }
            return nil
        }
        continuation?.resume(returning: .failure(Self.cancelled(mayHaveRun: true)))
    }

    private static func cancelled(mayHaveRun: Bool) -> RedisError {
        RedisError(.cancelled, "the task was cancelled", mayHaveRun: mayHaveRun)
    }
}
