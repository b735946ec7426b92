import NIOCore

/// What every connection says first, in one write: AUTH, CLIENT SETNAME, SELECT; and what the answers mean.
struct Handshake {
    enum Step {
        case authenticate
        case name
        case select(Int)
    }

    let steps: [Step]
    let bytes: ByteBuffer

    init(_ configuration: RedisConfiguration) throws(RedisError) {
        var steps: [Step] = []
        var bytes = ByteBuffer()
        func add(_ step: Step, _ command: [RedisArgument]) throws(RedisError) {
            steps.append(step)
            try CommandEncoder.encode(command, into: &bytes, limits: configuration.limits)
        }
        if let password = configuration.password {
            let user: [RedisArgument] = configuration.username.map { [.string($0)] } ?? []
            try add(.authenticate, ["AUTH"] + user + [.string(password)])
        }
        // Sent always: a server that wants a password says so here and not at the first command of a user.
        try add(.name, ["CLIENT", "SETNAME", .string(configuration.clientName)])
        if configuration.database != 0 {
            try add(.select(configuration.database), ["SELECT", .int(configuration.database)])
        }
        self.steps = steps
        self.bytes = bytes
    }

    /// The reason to give the connection up, or nil.
    static func problem(of step: Step, _ reply: RESPValue) -> RedisError? {
        guard case .error(let text) = reply else {
            return reply == .status("OK") ? nil : RedisError(.protocolViolation, "the server answers like no Redis: is the port right?")
        }
        let error = RedisError(serverReply: text).mayHaveRun(false)
        if error.code == .authentication || error.code == .loading { return error }
        if text.contains("max number of clients") {
            return RedisError(.unreachable, "\(text) (raise maxclients of the server)")
        }
        switch step {
        case .authenticate:
            return RedisError(.authentication, "\(error.message) (check the user and the password of the Redis URL)")
        case .name:
            // An ACL may forbid naming; nothing depends on the name.
            return nil
        case .select(let database):
            return RedisError(.invalidConfiguration, "database \(database): \(error.message) (change the number in the Redis URL)")
        }
    }
}

/// Speaks the ``Handshake`` on a fresh connection, then leaves the pipeline to whoever uses it.
final class HandshakeHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let handshake: Handshake
    private let reader: HiredisReader
    private let timeout: TimeAmount
    private var answered = 0
    private var isDone = false
    private var timer: Scheduled<Void>?
    private let promise: EventLoopPromise<Void>

    init(_ handshake: Handshake, configuration: RedisConfiguration, promise: EventLoopPromise<Void>) {
        self.handshake = handshake
        self.promise = promise
        timeout = TimeAmount(configuration.connectTimeout)
        // Answers to a handshake are a few short lines.
        reader = HiredisReader(bytesMax: 64 << 10, elementsMax: 16, feedBytes: configuration.limits.feedBytes)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { begin(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        begin(context)
        context.fireChannelActive()
    }

    private func begin(_ context: ChannelHandlerContext) {
        guard timer == nil, !isDone else { return }
        context.writeAndFlush(wrapOutboundOut(handshake.bytes), promise: nil)
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: timeout) {
            self.end(context, RedisError(.unreachable, "no answer to the first command within \(self.timeout.nanoseconds / 1_000_000) ms"))
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do throws(RedisError) {
            try reader.read(unwrapInboundIn(data)) { reply in
                guard !self.isDone else { return }
                if let problem = Handshake.problem(of: self.handshake.steps[self.answered], reply) {
                    return self.end(context, problem)
                }
                self.answered += 1
                if self.answered == self.handshake.steps.count { self.end(context, nil) }
            }
        } catch {
            end(context, error.mayHaveRun(false))
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(context, RedisError(.unreachable, "the server closed the connection before it answered"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(context, RedisError(.unreachable, "the connection failed before the server answered"))
    }

    private func end(_ context: ChannelHandlerContext, _ problem: RedisError?) {
        guard !isDone else { return }
        isDone = true
        timer?.cancel()
        if let problem {
            promise.fail(problem)
            context.close(promise: nil)
        } else {
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            promise.succeed()
        }
    }
}
