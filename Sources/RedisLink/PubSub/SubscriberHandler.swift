import NIOCore

/// What the subscription connection tells its owner; always on the event loop.
protocol SubscriberHandlerOwner: AnyObject {
    func acknowledgedSubscribe(_ channel: String)
    func acknowledgedUnsubscribe(_ channel: String)
    func refused(_ channels: [String], _ error: RedisError)
    func readComplete()
}

/// One subscribed connection: commands out, messages and acknowledgements in, and the watch over its silence.
///
/// RESP2 has no push type: messages are arrays between the answers, and the answers come in the order of the commands.
/// Lives on the event loop of its channel.
final class SubscriberHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Expected {
        case subscribe([String], remaining: Int)
        case unsubscribe([String], remaining: Int)
        case pong(EventLoopPromise<Bool>?)
    }

    private let delegate: any RedisSubscriberDelegate
    private weak var owner: (any SubscriberHandlerOwner)?
    private let limits: RedisLimits
    private let reader: HiredisReader
    private var context: ChannelHandlerContext?
    private var expected = CircularBuffer<Expected>()
    private var probes = 0
    private var lastRead = NIODeadline.uptimeNanoseconds(0)
    private var idleProbeSent: NIODeadline?
    private(set) var closeReason: RedisError?

    init(delegate: any RedisSubscriberDelegate, owner: any SubscriberHandlerOwner, limits: RedisLimits) {
        self.delegate = delegate
        self.owner = owner
        self.limits = limits
        reader = HiredisReader(bytesMax: limits.pushBytesMax, elementsMax: limits.arrayElementsMax, feedBytes: limits.pushFeedBytes)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        lastRead = context.eventLoop.now
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        shutDown(RedisError(.connectionLost, "the subscription connection was closed"))
        self.context = nil
    }

    // MARK: Commands

    /// Sends the commands with one write.
    func send(_ commands: [SubscriptionTable.Command]) {
        guard closeReason == nil, let context else { return }
        var buffer = ByteBuffer()
        do throws(RedisError) {
            for command in commands {
                switch command {
                case .subscribe(let channels):
                    try encode("SUBSCRIBE", channels, into: &buffer)
                    expected.append(.subscribe(channels, remaining: channels.count))
                case .unsubscribe(let channels):
                    try encode("UNSUBSCRIBE", channels, into: &buffer)
                    expected.append(.unsubscribe(channels, remaining: channels.count))
                }
            }
        } catch {
            return close(error)
        }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    private func encode(_ name: RedisArgument, _ channels: [String], into buffer: inout ByteBuffer) throws(RedisError) {
        try CommandEncoder.encode([name] + channels.map { .string($0) }, into: &buffer, limits: limits)
    }

    /// Sends `PING`; the promise gets true with the answer, false when the connection ends before or `timeout` passes.
    func probe(_ promise: EventLoopPromise<Bool>, timeout: TimeAmount) {
        guard closeReason == nil, let context, probes < limits.probesMax else { return promise.succeed(false) }
        let answer = context.eventLoop.makePromise(of: Bool.self)
        let timer = context.eventLoop.scheduleTask(in: timeout) { answer.succeed(false) }
        answer.futureResult.whenComplete { _ in timer.cancel() }
        answer.futureResult.cascade(to: promise)
        ping(answer, context)
    }

    private func ping(_ promise: EventLoopPromise<Bool>?, _ context: ChannelHandlerContext) {
        probes += 1
        expected.append(.pong(promise))
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "*1\r\n$4\r\nPING\r\n")), promise: nil)
    }

    /// Called now and then: asks a silent connection for a sign of life, and closes one that does not give it.
    func watch() {
        guard closeReason == nil, let context else { return }
        let now = context.eventLoop.now
        if let sent = idleProbeSent {
            if lastRead > sent {
                idleProbeSent = nil
            } else if now - sent >= limits.probeTimeout {
                return close(RedisError(.timeout, "the subscription connection gives no sign of life"))
            }
        }
        if idleProbeSent == nil, now - lastRead >= limits.idleBeforeProbe {
            idleProbeSent = now
            ping(nil, context)
        }
    }

    // MARK: Input

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        lastRead = context.eventLoop.now
        do throws(RedisError) {
            try reader.readPushes(unwrapInboundIn(data)) { push in
                if case .message(let channel, let payload) = push {
                    self.delegate.redisMessage(channel: channel, payload: payload)
                } else {
                    self.receive(push)
                }
            }
        } catch {
            close(error)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        owner?.readComplete()
        delegate.redisReadComplete()
        context.fireChannelReadComplete()
    }

    private func receive(_ push: RedisPush) {
        guard closeReason == nil else { return }
        switch (push, expected.first) {
        case (.subscribed(let channel), .subscribe(let channels, let remaining)):
            advance(.subscribe(channels, remaining: remaining - 1), isLast: remaining == 1)
            owner?.acknowledgedSubscribe(channel)
        case (.unsubscribed(let channel), .unsubscribe(let channels, let remaining)):
            advance(.unsubscribe(channels, remaining: remaining - 1), isLast: remaining == 1)
            owner?.acknowledgedUnsubscribe(channel)
        case (.pong, .pong(let promise)):
            endProbe(promise, true)
        case (.error(let text), .subscribe(let channels, _)), (.error(let text), .unsubscribe(let channels, _)):
            expected.removeFirst()
            owner?.refused(channels, RedisError(serverReply: text))
        case (.error, .pong(let promise)):
            // Refused, but alive.
            endProbe(promise, true)
        default:
            close(RedisError(.protocolViolation, "an answer on the subscription connection that fits no command"))
        }
    }

    private func advance(_ next: Expected, isLast: Bool) {
        if isLast { expected.removeFirst() } else { expected[expected.startIndex] = next }
    }

    private func endProbe(_ promise: EventLoopPromise<Bool>?, _ isAlive: Bool) {
        expected.removeFirst()
        probes -= 1
        // Answered late: the timer was first, and a second result is ignored by the promise.
        promise?.succeed(isAlive)
    }

    // MARK: End

    func channelInactive(context: ChannelHandlerContext) {
        shutDown(RedisError(.connectionLost, "Redis closed the subscription connection"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(RedisError(.connectionLost, "the subscription connection failed: \(error)"))
    }

    func close(_ reason: RedisError) {
        shutDown(reason)
        context?.close(promise: nil)
    }

    private func shutDown(_ reason: RedisError) {
        guard closeReason == nil else { return }
        closeReason = reason
        while let entry = expected.popFirst() {
            if case .pong(let promise) = entry { promise?.succeed(false) }
        }
    }
}
