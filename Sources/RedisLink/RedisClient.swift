public import Logging
public import NIOCore

/// A pool of pipelined connections to one Redis.
///
/// ``run()`` keeps the connections open; commands may be sent from any task, before `run()` has got going too. Nothing waits
/// for longer than its timeout, and a command that finds no connection fails with `.unreachable` after a short wait.
public final class RedisClient: Sendable {
    public let configuration: RedisConfiguration
    private let core: ClientCore
    private let blocking: BlockingConnections
    /// Of the first connection; of all of them when the group is a single loop. A task that runs there sends and receives without
    /// a change of thread.
    public let eventLoop: any EventLoop

    public convenience init(configuration: RedisConfiguration, eventLoopGroup: any EventLoopGroup, logger: Logger) {
        self.init(
            configuration: configuration,
            eventLoopGroup: eventLoopGroup,
            logger: logger,
            random: { Double.random(in: 0...1) }
        )
    }

    /// - Parameter random: numbers in 0 ... 1 for the jitter of reconnecting.
    public init(
        configuration: RedisConfiguration,
        eventLoopGroup: any EventLoopGroup,
        logger: Logger,
        random: @escaping @Sendable () -> Double
    ) {
        self.configuration = configuration
        let connector = Connector(configuration: configuration)
        let slots = (0..<max(1, configuration.poolSize)).map { _ in
            ConnectionSlot(eventLoop: eventLoopGroup.next(), connector: connector, random: random, logger: logger)
        }
        core = ClientCore(configuration: configuration, slots: slots, logger: logger)
        eventLoop = slots[0].eventLoop
        blocking = BlockingConnections(connector: connector, group: eventLoopGroup, budget: core.budget)
    }

    /// Opens the connections and keeps them open until the task is cancelled; then everything unanswered fails with `.closed`.
    public func run() async throws {
        try core.start()
        // Only a cancellation ends it; an hour is as good as any other long time.
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3_600)) }
        blocking.closeAll()
        await core.stop()
    }

    /// True while at least one connection of the pool is up.
    public var isConnected: Bool { core.isConnected }

    /// Commands without an answer, over all connections.
    public var pendingCommands: Int { core.budget.pendingCommands }

    // MARK: Commands

    /// Sends one command and returns its reply; an error reply is thrown as the ``RedisError`` it stands for.
    ///
    /// Cancelling the task ends the wait at once with `.cancelled`; the command may still run.
    /// - Parameter timeout: default ``RedisConfiguration/commandTimeout``.
    public func send(_ command: [RedisArgument], timeout: Duration? = nil) async throws(RedisError) -> RESPValue {
        var bytes = ByteBuffer()
        try CommandEncoder.encode(command, into: &bytes, limits: configuration.limits)
        switch try await submit(bytes, replyCount: 1, timeout: timeout) {
        case .one(let value): return try value.asResult.get()
        case .many(let values): return .array(values)
        }
    }

    /// Sends all commands in one write, on one connection, and returns the replies in the same order.
    ///
    /// Error replies are values (`.error`); only failures of the connection throw.
    public func pipeline(_ commands: [[RedisArgument]], timeout: Duration? = nil) async throws(RedisError) -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        var bytes = ByteBuffer()
        for command in commands { try CommandEncoder.encode(command, into: &bytes, limits: configuration.limits) }
        switch try await submit(bytes, replyCount: commands.count, timeout: timeout) {
        case .one(let value): return [value]
        case .many(let values): return values
        }
    }

    /// Like ``send(_:timeout:)`` for code on an event loop: no task, no suspension. Fails with ``RedisError`` only.
    public func sendFuture(
        _ command: [RedisArgument],
        timeout: Duration? = nil,
        on eventLoop: any EventLoop
    ) -> EventLoopFuture<RESPValue> {
        let promise = eventLoop.makePromise(of: RESPValue.self)
        do throws(RedisError) {
            var bytes = ByteBuffer()
            try CommandEncoder.encode(command, into: &bytes, limits: configuration.limits)
            core.submit(submission(bytes, replyCount: 1, timeout: timeout, completion: .promise(promise)))
        } catch {
            promise.fail(error)
        }
        return promise.futureResult
    }

    /// ``evaluate(_:keys:arguments:timeout:)`` for code on ``eventLoop``, on the first connection while that is up: what is sent so
    /// runs in the order of the calls. Fails with ``RedisError`` only.
    public func evaluateInOrder(_ script: RedisScript, keys: [String], arguments: [RedisArgument]) -> EventLoopFuture<RESPValue> {
        let tail = [.int(keys.count)] + keys.map { RedisArgument.string($0) } + arguments
        return sendInOrder(["EVALSHA", .string(script.sha1)] + tail).flatMapError { error in
            guard let error = error as? RedisError, error.code == .noScript, !error.mayHaveRun else {
                return self.eventLoop.makeFailedFuture(error)
            }
            return self.sendInOrder(["EVAL", .string(script.source)] + tail)
        }
    }

    private func sendInOrder(_ command: [RedisArgument]) -> EventLoopFuture<RESPValue> {
        let promise = eventLoop.makePromise(of: RESPValue.self)
        do throws(RedisError) {
            var bytes = ByteBuffer()
            try CommandEncoder.encode(command, into: &bytes, limits: configuration.limits)
            core.submit(submission(bytes, replyCount: 1, timeout: nil, completion: .promise(promise)), first: 0)
        } catch {
            promise.fail(error)
        }
        return promise.futureResult
    }

    /// Runs a script by `EVALSHA`, and by `EVAL` once when the server does not know it (yet, or any more).
    public func evaluate(
        _ script: RedisScript,
        keys: [String],
        arguments: [RedisArgument],
        timeout: Duration? = nil
    ) async throws(RedisError) -> RESPValue {
        do throws(RedisError) {
            return try await evaluate("EVALSHA", script.sha1, keys, arguments, timeout)
        } catch {
            guard error.code == .noScript, !error.mayHaveRun else { throw error }
            return try await evaluate("EVAL", script.source, keys, arguments, timeout)
        }
    }

    private func evaluate(
        _ verb: StaticString,
        _ script: String,
        _ keys: [String],
        _ arguments: [RedisArgument],
        _ timeout: Duration?
    ) async throws(RedisError) -> RESPValue {
        var bytes = ByteBuffer()
        try CommandEncoder.encode(verb, script: script, keys: keys, arguments: arguments, into: &bytes, limits: configuration.limits)
        switch try await submit(bytes, replyCount: 1, timeout: timeout) {
        case .one(let value): return try value.asResult.get()
        case .many(let values): return .array(values)
        }
    }

    /// Sends a command that blocks its connection (`BLPOP`), on a connection that no other command uses meanwhile.
    ///
    /// Cancelling the task closes that connection at once, so that Redis forgets the command. A server that cannot be reached
    /// is reported after a short pause, so that a loop around this call does not spin.
    /// - Parameter timeout: the command's own timeout; the reply may take `RedisLimits.blockingSlack` longer.
    public func blockingSend(_ command: [RedisArgument], timeout: Duration) async throws(RedisError) -> RESPValue {
        var bytes = ByteBuffer()
        try CommandEncoder.encode(command, into: &bytes, limits: configuration.limits)
        let deadline = NIODeadline.now() + TimeAmount(timeout + configuration.limits.blockingSlack)
        do throws(RedisError) {
            return try await blocking.send(bytes, deadline: deadline)
        } catch {
            if error.code == .unreachable || error.code == .authentication {
                try? await Task.sleep(nanoseconds: UInt64(configuration.limits.connectionWaitMax.nanoseconds))
            }
            throw error
        }
    }

    // MARK: Parts

    private func submission(
        _ bytes: ByteBuffer,
        replyCount: Int,
        timeout: Duration?,
        completion: Submission.Completion
    ) -> Submission {
        let deadline = NIODeadline.now() + TimeAmount(timeout ?? configuration.commandTimeout)
        return Submission(bytes: bytes, replyCount: replyCount, deadline: deadline, completion: completion, budget: core.budget)
    }

    private func submit(_ bytes: ByteBuffer, replyCount: Int, timeout: Duration?) async throws(RedisError) -> Submission.Reply {
        let waiter = ReplyWaiter()
        let submission = submission(bytes, replyCount: replyCount, timeout: timeout, completion: .waiter(waiter))
        return try await waiter.wait { core.submit(submission) }.get()
    }
}
