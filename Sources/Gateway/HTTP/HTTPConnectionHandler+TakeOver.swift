import NIOCore

/// Handing the connection to a stream.
extension HTTPConnectionHandler {
    /// Makes the connection the session's: decoder out, this handler out, session in, then whatever came behind the request.
    ///
    /// All answers before are sent (requests are served one at a time), and the pipeline carries only bytes outwards, so there is
    /// nothing of HTTP left that could touch the session's. Works at any request of the connection, not only at its first.
    func takeOver(_ make: @Sendable () -> any ChannelHandler) {
        guard let context, let exchange, exchange.isComplete else { return }
        account(exchange, status: 200)
        let isOwedRead = isOwedRead
        leave(error: GatewayError(.internalError, "the connection became a stream"))
        decoder.release()
        let session = make()
        let removed: EventLoopFuture<Void>
        do {
            let decoderContext = try context.pipeline.syncOperations.context(handlerType: ByteToMessageHandler<RequestDecoder>.self)
            removed = context.pipeline.syncOperations.removeHandler(context: decoderContext)
        } catch {
            return context.close(promise: nil)
        }
        // At once, unless we were called from within the decoder: then when it has returned.
        removed.assumeIsolated().whenComplete { _ in self.install(session, isOwedRead: isOwedRead) }
    }

    private func install(_ session: any ChannelHandler, isOwedRead: Bool) {
        guard let context else { return }
        let (channel, pipeline) = (context.channel, context.pipeline)
        let leftover = decoder.leftover
        pipeline.syncOperations.removeHandler(context: context).assumeIsolated().whenComplete { _ in
            guard (try? pipeline.syncOperations.addHandler(session)) != nil else { return channel.close(promise: nil) }
            if let leftover {
                pipeline.fireChannelRead(leftover)
                pipeline.fireChannelReadComplete()
            }
            if isOwedRead { channel.read() }
        }
    }
}
