import NIOCore

/// The body of a request that is taken piece by piece. Reading slowly slows the client down; leaving early tells the connection.
struct RequestBody: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    typealias Strategy = NIOAsyncSequenceProducerBackPressureStrategies.HighLowWatermark
    typealias Producer = NIOThrowingAsyncSequenceProducer<ByteBuffer, any Error, Strategy, RequestBodyDelegate>

    /// Pieces (of at most `GatewayLimits.readBytes`) waiting for the route before the socket is left alone, and before it is read again.
    private static let strategy = Strategy(lowWatermark: 2, highWatermark: 8)

    private let sequence: Producer

    /// - Returns: the body, and where the connection puts the pieces.
    static func make(delegate: RequestBodyDelegate) -> (body: RequestBody, source: Producer.Source) {
        let made = Producer.makeSequence(
            elementType: ByteBuffer.self,
            failureType: (any Error).self,
            backPressureStrategy: strategy,
            // A connection drops its source when the route has answered before the end; that is no mistake worth the process.
            finishOnDeinit: true,
            delegate: delegate
        )
        return (RequestBody(sequence: made.sequence), made.source)
    }

    func makeAsyncIterator() -> Producer.AsyncIterator { sequence.makeAsyncIterator() }
}

/// Tells the connection, on its event loop, that the route wants more.
final class RequestBodyDelegate: NIOAsyncSequenceProducerDelegate {
    private let eventLoop: any EventLoop
    private let wantsMore: @Sendable () -> Void

    init(eventLoop: any EventLoop, wantsMore: @escaping @Sendable () -> Void) {
        self.eventLoop = eventLoop
        self.wantsMore = wantsMore
    }

    func produceMore() { eventLoop.execute(wantsMore) }

    /// The route is done with the body, read or not; its answer says what becomes of the rest.
    func didTerminate() { eventLoop.execute(wantsMore) }
}
