import NIOCore

/// Sends commands on one connection and matches the replies to them: first in, first out, as Redis answers.
///
/// One deadline timer for the connection, not one per command: it watches the oldest unanswered command. When that is
/// overdue, the connection's answers can no longer be trusted to come, so it is closed: that command fails with `.timeout`,
/// the ones behind it with `.connectionLost`; all of them may have run.
///
/// Lives on the event loop of its channel.
final class CommandHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private struct InFlight {
        let cost: PendingBudget.Cost
        let deadline: NIODeadline
        let completion: Submission.Completion
        let budget: PendingBudget
        let replyCount: Int
    }

    private let limits: RedisLimits
    private let reader: HiredisReader
    private var inFlight = CircularBuffer<InFlight>()
    /// Replies so far of the oldest entry, when it expects several.
    private var collected: [RESPValue] = []
    private var context: ChannelHandlerContext?
    private var timer: Scheduled<Void>?
    private var timerDeadline = NIODeadline.distantFuture
    /// Set once; after it nothing is sent and nothing is expected.
    private var closeReason: RedisError?

    init(limits: RedisLimits) {
        self.limits = limits
        reader = HiredisReader(bytesMax: limits.replyBytesMax, elementsMax: limits.arrayElementsMax, feedBytes: limits.feedBytes)
    }

    var unanswered: Int { inFlight.count }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        shutDown(RedisError(.connectionLost, "the connection to Redis was closed"), overdue: nil)
        self.context = nil
    }

    // MARK: Commands

    /// Writes the submissions with one flush. Returns false, and takes none of them, when the connection is closed.
    func submit(_ submissions: [Submission]) -> Bool {
        guard closeReason == nil, let context, context.channel.isActive else { return false }
        var joined = ByteBuffer()
        for submission in submissions {
            if submission.isAbandoned {
                submission.finish(.failure(RedisError(.cancelled, "the task was cancelled")))
                continue
            }
            append(submission)
            if submission.bytes.readableBytes >= limits.coalescedWriteBytes {
                write(&joined, context)
                context.write(wrapOutboundOut(submission.bytes), promise: nil)
            } else {
                if joined.readableBytes == 0 { joined = submission.bytes } else { joined.writeImmutableBuffer(submission.bytes) }
                if joined.readableBytes >= limits.coalescedWriteBytes { write(&joined, context) }
            }
        }
        write(&joined, context)
        context.flush()
        armTimer(context)
        return true
    }

    private func append(_ submission: Submission) {
        inFlight.append(
            InFlight(
                cost: submission.cost,
                deadline: submission.deadline,
                completion: submission.completion,
                budget: submission.budget,
                replyCount: submission.replyCount
            )
        )
    }

    private func write(_ buffer: inout ByteBuffer, _ context: ChannelHandlerContext) {
        guard buffer.readableBytes > 0 else { return }
        context.write(wrapOutboundOut(buffer), promise: nil)
        buffer = ByteBuffer()
    }

    // MARK: Replies

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do throws(RedisError) {
            try reader.read(unwrapInboundIn(data)) { reply in self.receive(reply) }
        } catch {
            close(error)
        }
    }

    private func receive(_ reply: RESPValue) {
        guard closeReason == nil else { return }
        guard let first = inFlight.first else {
            return close(RedisError(.protocolViolation, "Redis sent a reply that nobody asked for"))
        }
        var result = Submission.Reply.one(reply)
        if first.replyCount > 1 {
            collected.append(reply)
            guard collected.count == first.replyCount else { return }
            result = .many(collected)
            collected = []
        }
        inFlight.removeFirst()
        first.budget.release(first.cost)
        first.completion.complete(.success(result))
    }

    // MARK: Deadline

    /// Arms the timer for the oldest command unless it fires early enough anyway; in steady flow it is touched once per
    /// time-out, not once per command.
    private func armTimer(_ context: ChannelHandlerContext) {
        guard let deadline = inFlight.first?.deadline, deadline < timerDeadline else { return }
        timer?.cancel()
        timerDeadline = deadline
        timer = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { self.checkDeadline() }
    }

    private func checkDeadline() {
        timer = nil
        timerDeadline = .distantFuture
        guard closeReason == nil, let context, let first = inFlight.first else { return }
        if first.deadline <= context.eventLoop.now {
            let overdue = RedisError(.timeout, "Redis did not answer in time", mayHaveRun: true)
            shutDown(RedisError(.connectionLost, "closed because an earlier command got no answer in time"), overdue: overdue)
            context.close(promise: nil)
        } else {
            armTimer(context)
        }
    }

    // MARK: End

    func channelInactive(context: ChannelHandlerContext) {
        shutDown(RedisError(.connectionLost, "Redis closed the connection"), overdue: nil)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(RedisError(.connectionLost, "the connection to Redis failed: \(error)"))
    }

    /// Closes the connection; everything unanswered fails with `reason`.
    func close(_ reason: RedisError) {
        shutDown(reason, overdue: nil)
        context?.close(promise: nil)
    }

    /// Everybody who waits is told before the close, so that no wait outlives the connection.
    private func shutDown(_ reason: RedisError, overdue: RedisError?) {
        guard closeReason == nil else { return }
        closeReason = reason
        timer?.cancel()
        timer = nil
        var error = overdue ?? reason.mayHaveRun(true)
        while let entry = inFlight.popFirst() {
            entry.budget.release(entry.cost)
            entry.completion.complete(.failure(error))
            error = reason.mayHaveRun(true)
        }
    }
}
