import NIOCore
import Synchronization

/// Connections for commands that block the connection itself (`BLPOP`): one per blocked caller, kept for the next.
final class BlockingConnections: Sendable {
    private struct State {
        var idle: [BlockingConnection] = []
        var leased: [ObjectIdentifier: BlockingConnection] = [:]
        var isClosed = false
    }

    private let connector: Connector
    private let group: any EventLoopGroup
    private let budget: PendingBudget
    private let limits: RedisLimits
    private let state = Mutex(State())

    init(connector: Connector, group: any EventLoopGroup, budget: PendingBudget) {
        self.connector = connector
        self.group = group
        self.budget = budget
        limits = connector.configuration.limits
    }

    deinit { closeAll() }

    /// Sends one command and waits for its reply until `deadline`. Any failure, and a cancelled task, closes the connection:
    /// that is the only way to make Redis forget a blocked command.
    func send(_ bytes: ByteBuffer, deadline: NIODeadline) async throws(RedisError) -> RESPValue {
        let connection = try lease()
        let waiter = ReplyWaiter()
        let submission = Submission(bytes: bytes, replyCount: 1, deadline: deadline, completion: .waiter(waiter), budget: budget)
        let outcome = await waiter.wait {
            do throws(RedisError) {
                try budget.acquire(submission.cost)
                connection.submit(submission)
            } catch {
                waiter.resume(.failure(error))
            }
        }
        switch outcome {
        case .success(.one(let value)):
            giveBack(connection, isUsable: true)
            return try value.asResult.get()
        case .success(.many):
            giveBack(connection, isUsable: false)
            throw RedisError(.protocolViolation, "several replies to one command", mayHaveRun: true)
        case .failure(let error):
            giveBack(connection, isUsable: false)
            throw error
        }
    }

    func closeAll() {
        let all = state.withLock { state in
            state.isClosed = true
            defer { state.idle = [] }
            return state.idle + state.leased.values
        }
        for connection in all { connection.close(RedisError(.closed, "the client has ended")) }
    }

    private func lease() throws(RedisError) -> BlockingConnection {
        let (connection, error) = state.withLock { state -> (BlockingConnection?, RedisError?) in
            guard !state.isClosed else { return (nil, RedisError(.closed, "the client has ended")) }
            guard state.leased.count < limits.blockingConnectionsMax else {
                return (nil, RedisError(.tooManyPending, "\(state.leased.count) blocking commands at once are the limit"))
            }
            let connection = state.idle.popLast() ?? BlockingConnection(connector: connector, eventLoop: group.next())
            state.leased[ObjectIdentifier(connection)] = connection
            return (connection, nil)
        }
        if let connection { return connection }
        throw error ?? RedisError(.closed, "the client has ended")
    }

    private func giveBack(_ connection: BlockingConnection, isUsable: Bool) {
        let isKept = state.withLock { state in
            state.leased[ObjectIdentifier(connection)] = nil
            guard isUsable, !state.isClosed else { return false }
            state.idle.append(connection)
            return true
        }
        if !isKept { connection.close(RedisError(.closed, "the connection of a blocking command was given up")) }
    }
}

/// One such connection: opened at its first command, opened again when Redis closed it between two commands.
final class BlockingConnection: Sendable {
    private struct LoopState {
        var handler: CommandHandler?
        var isClosed = false
    }

    private let connector: Connector
    private let eventLoop: any EventLoop
    private let state: NIOLoopBoundBox<LoopState>

    init(connector: Connector, eventLoop: any EventLoop) {
        self.connector = connector
        self.eventLoop = eventLoop
        state = .makeBoxSendingValue(LoopState(), eventLoop: eventLoop)
    }

    func submit(_ submission: Submission) {
        eventLoop.execute {
            if self.state.value.handler?.submit([submission]) == true { return }
            self.connector.connect(on: self.eventLoop).whenComplete { result in
                switch result {
                case .success(let channel): self.opened(channel, submission)
                case .failure(let error):
                    submission.finish(.failure((error as? RedisError ?? RedisError(.unreachable, "\(error)")).mayHaveRun(false)))
                }
            }
        }
    }

    private func opened(_ channel: any Channel, _ submission: Submission) {
        let handler = CommandHandler(limits: connector.configuration.limits)
        let isAdded = (try? channel.pipeline.syncOperations.addHandler(handler)) != nil
        guard isAdded, !state.value.isClosed, handler.submit([submission]) else {
            channel.close(promise: nil)
            return submission.finish(.failure(RedisError(.closed, "the connection was given up while it was being opened")))
        }
        state.value.handler = handler
    }

    func close(_ reason: RedisError) {
        eventLoop.execute {
            self.state.value.isClosed = true
            self.state.value.handler?.close(reason)
        }
    }
}
