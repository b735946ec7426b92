import NIOCore

/// Sends commands on one connection and matches the replies to them: first in, first out, as Redis answers.
///
/// One deadline timer for the connection, not one per command. When the oldest unanswered command is overdue, answers can no
/// longer be trusted to come, and the connection is closed: what is overdue fails with `.timeout`, the rest with
/// `.connectionLost`; all of it may have run. A command that is overdue behind an older one with more time fails alone, and
/// its late answer is dropped.
///
/// Lives on the event loop of its channel.
final class CommandHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private struct InFlight {
        let cost: PendingBudget.Cost
        let deadline: NIODeadline
        /// Nil once somebody was told that it is overdue.
        var completion: Submission.Completion?
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
        shutDown(RedisError(.connectionLost, "the connection to Redis was closed"))
        self.context = nil
    }

    // MARK: Commands

    /// Writes the submissions with one flush. Returns false, and takes none of them, when the connection is closed.
    func submit(_ submissions: [Submission]) -> Bool {
        guard closeReason == nil, let context, context.channel.isActive else { return false }
        let now = context.eventLoop.now
        var earliest = NIODeadline.distantFuture
        var joined = ByteBuffer()
        for submission in submissions {
            if let reason = reasonNotToSend(submission, now) {
                submission.finish(.failure(reason))
                continue
            }
            earliest = min(earliest, submission.deadline)
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
        armTimer(for: earliest, context)
        return true
    }

    private func reasonNotToSend(_ submission: Submission, _ now: NIODeadline) -> RedisError? {
        if submission.isAbandoned { return RedisError(.cancelled, "the task was cancelled") }
        if submission.deadline <= now { return RedisError(.timeout, "the time was up before the command could be sent") }
        return nil
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
        first.completion?.complete(.success(result))
    }

    // MARK: Deadline

    /// Arms the timer unless it fires early enough anyway: in steady flow it is touched once per timeout, not once per command.
    private func armTimer(for deadline: NIODeadline, _ context: ChannelHandlerContext) {
        guard deadline < timerDeadline else { return }
        timer?.cancel()
        timerDeadline = deadline
        timer = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { self.checkDeadlines() }
    }

    private func checkDeadlines() {
        timer = nil
        timerDeadline = .distantFuture
        guard closeReason == nil, let context, let first = inFlight.first else { return }
        let now = context.eventLoop.now
        let overdue = inFlight.indices.filter { inFlight[$0].completion != nil && inFlight[$0].deadline <= now }
        if !overdue.isEmpty, first.deadline <= now {
            shutDown(RedisError(.connectionLost, "closed because an earlier command got no answer in time"), overdueAt: now)
            return context.close(promise: nil)
        }
        for index in overdue {
            let completion = inFlight[index].completion
            inFlight[index].completion = nil
            completion?.complete(.failure(Self.overdue))
        }
        let earliest = inFlight.lazy.filter { $0.completion != nil }.map(\.deadline).min()
        if let earliest { armTimer(for: earliest, context) }
    }

    private static let overdue = RedisError(.timeout, "Redis did not answer in time", mayHaveRun: true)

    // MARK: End

    func channelInactive(context: ChannelHandlerContext) {
        shutDown(RedisError(.connectionLost, "Redis closed the connection"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(RedisError(.connectionLost, "the connection to Redis failed: \(error)"))
    }

    /// Closes the connection; everything unanswered fails with `reason`.
    func close(_ reason: RedisError) {
        shutDown(reason)
        context?.close(promise: nil)
    }

    /// Everybody who waits is told before the close, so that no wait outlives the connection.
    private func shutDown(_ reason: RedisError, overdueAt now: NIODeadline? = nil) {
        guard closeReason == nil else { return }
        closeReason = reason
        timer?.cancel()
        timer = nil
        while let entry = inFlight.popFirst() {
            entry.budget.release(entry.cost)
            let isOverdue = now.map { entry.deadline <= $0 } ?? false
            entry.completion?.complete(.failure(isOverdue ? Self.overdue : reason.mayHaveRun(true)))
        }
    }
}
