import NIOCore

/// What both live transports do to a channel they take over from HTTP.
enum Takeover {
    /// Small receive buffers (the largest thing an idle connection owns) and water marks for conflation.
    static func configure(_ channel: any Channel, _ limits: HubLimits) {
        guard let options = channel.syncOptions else { return }
        // A test channel knows none of these, and works without.
        try? options.setOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: limits.receiveBufferBytes))
        try? options.setOption(.maxMessagesPerRead, value: UInt(limits.readsPerTurn))
        try? options.setOption(
            .writeBufferWaterMark,
            value: .init(low: limits.outboundLowWater, high: limits.outboundHighWater)
        )
    }

    /// Writes a last answer on a connection that was never admitted.
    static func writeAndClose(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        let promise = context.eventLoop.makePromise(of: Void.self)
        // Safety: the future completes on this connection's event loop.
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        promise.futureResult.whenComplete { _ in bound.value.close(promise: nil) }
        context.writeAndFlush(NIOAny(bytes), promise: promise)
        // A peer that does not read is not waited for.
        context.eventLoop.assumeIsolated().scheduleTask(in: .seconds(5)) { bound.value.close(promise: nil) }
    }
}
