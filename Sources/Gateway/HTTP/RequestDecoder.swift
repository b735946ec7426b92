import NIOCore
import NIOHTTP1

/// SwiftNIO's request decoder, which can be told to leave the bytes alone.
///
/// A connection may become a stream at any of its requests. From then on nothing may be parsed, and what has arrived already
/// must go to the new owner as bytes: NIO's own hand-over sends it down the pipeline as another type, to whoever stands there.
final class RequestDecoder: ByteToMessageDecoder {
    typealias InboundOut = HTTPServerRequestPart

    private let inner: HTTPRequestDecoder
    private var isReleased = false
    /// What came behind the last request, once the decoder has left the pipeline.
    private(set) var leftover: ByteBuffer?

    init(limits: GatewayLimits) {
        var configuration = NIOHTTPDecoderLimitConfiguration()
        configuration.maxHeaderFieldSize = limits.headerFieldBytes
        configuration.maxHeaderListSize = limits.headerBytes
        configuration.maxHeaderFieldCount = limits.headerFields
        inner = HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: configuration)
    }

    /// From now on bytes are kept, not parsed.
    func release() { isReleased = true }

    func decoderAdded(context: ChannelHandlerContext) { inner.decoderAdded(context: context) }

    func decoderRemoved(context: ChannelHandlerContext) { inner.decoderRemoved(context: context) }

    func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        isReleased ? .needMoreData : try inner.decode(context: context, buffer: &buffer)
    }

    func decodeLast(context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool) throws -> DecodingState {
        guard isReleased else { return try inner.decodeLast(context: context, buffer: &buffer, seenEOF: seenEOF) }
        if buffer.readableBytes > 0 { leftover = buffer.readSlice(length: buffer.readableBytes) }
        return .needMoreData
    }
}
