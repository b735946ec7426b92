import CHiredis
import NIOCore

/// A RESP2 parser: hiredis reads the protocol, own object callbacks copy each element out at once.
///
/// - Strings that hiredis hands to a callback are valid only inside it, so they are copied there, once.
/// - hiredis has no limit for the size of a reply: the unparsed part and the parsed part are checked here.
/// - A protocol error kills the reader: every later call throws the same error.
/// - hiredis is not re-entrant: a sink must not feed the reader it is called from. Sinks are called outside of hiredis'
///   own frames, and the caller's reference keeps the reader alive, so a sink may drop its owner.
final class HiredisReader {
    private let reader: UnsafeMutablePointer<redisReader>
    /// Where hiredis' callbacks find it; ours alone.
    private let tape: UnsafeMutablePointer<ReplyTape>
    private let bytesMax: Int
    private let feedBytes: Int
    /// Room that a reply begins with: most fit, and are written without growing.
    private static let smallReply = 512
    private var failure: RedisError?
    private var isReading = false

    init(bytesMax: Int, elementsMax: Int, feedBytes: Int) {
        guard let reader = redisReaderCreateWithFunctions(HiredisCallbacks.table) else {
            // 300 bytes are not to be had: nothing can go on.
            fatalError("no memory for a redisReader")
        }
        tape = .allocate(capacity: 1)
        tape.initialize(to: ReplyTape(bytesMax: bytesMax, elementsMax: elementsMax))
        self.reader = reader
        self.bytesMax = bytesMax
        self.feedBytes = feedBytes
        reader.pointee.privdata = UnsafeMutableRawPointer(tape)
    }

    deinit {
        redisReaderFree(reader)
        tape.deinitialize(count: 1)
        tape.deallocate()
    }

    /// Parses `buffer` and calls `onReply` for each complete reply, in order.
    func read(_ buffer: ByteBuffer, _ onReply: (RESPValue) -> Void) throws(RedisError) {
        try feed(buffer) { reader throws(RedisError) in
            reader.tape.pointee.reserve(min(HiredisReader.smallReply, reader.unparsed))
            while try reader.parseOne() {
                var index = 0
                let value = reader.tape.pointee.value(at: &index)
                // A reply has a buffer of its own: it lives as long as somebody keeps a part of it.
                reader.tape.pointee.cut(keepingFrom: reader.tape.pointee.nodes.count)
                onReply(value)
            }
        }
    }

    /// Parses `buffer` as the stream of a subscribed connection and calls `onPush` for each complete message, in order.
    ///
    /// All messages of one feed share one buffer, and no tree is built for them.
    func readPushes(_ buffer: ByteBuffer, _ onPush: (RedisPush) -> Void) throws(RedisError) {
        try feed(buffer) { reader throws(RedisError) in
            var done = 0
            // `feed` gave hiredis at most this much, beyond what the tape holds already.
            reader.tape.pointee.reserve(min(reader.feedBytes, reader.unparsed))
            var failure: RedisError?
            do throws(RedisError) {
                while try reader.parseOne() { done = reader.tape.pointee.nodes.count }
            } catch {
                failure = error
            }
            var index = 0
            while index < done { onPush(RedisPush(reader.tape.pointee, at: &index)) }
            if done > 0 { reader.tape.pointee.cut(keepingFrom: done) }
            // What was complete before the error counts.
            if let failure { throw failure }
        }
    }

    private func feed(_ buffer: ByteBuffer, drain: (HiredisReader) throws(RedisError) -> Void) throws(RedisError) {
        precondition(!isReading, "a reply's sink fed the reader that called it")
        if let failure { throw failure }
        isReading = true
        defer { isReading = false }
        var rest = buffer
        while let chunk = rest.readSlice(length: min(feedBytes, rest.readableBytes)), chunk.readableBytes > 0 {
            let status = chunk.withUnsafeReadableBytes { bytes in
                redisReaderFeed(reader, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
            }
            guard status == REDIS_OK else { throw fail("no memory for the reply") }
            try drain(self)
            guard unparsed <= bytesMax else { throw fail("\(unparsed) bytes of one unfinished reply; at most \(bytesMax)") }
        }
    }

    private var unparsed: Int { reader.pointee.len - reader.pointee.pos }

    /// True when a whole reply lies on the tape.
    private func parseOne() throws(RedisError) -> Bool {
        var reply: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &reply) == REDIS_OK else { throw fail(tape.pointee.refusal?.rawValue ?? errorText) }
        return reply != nil
    }

    private var errorText: String {
        withUnsafeBytes(of: &reader.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private func fail(_ text: String) -> RedisError {
        let error = RedisError(.protocolViolation, text, mayHaveRun: true)
        failure = error
        return error
    }
}

/// The C side: functions that write on the tape in `privdata`.
private enum HiredisCallbacks {
    /// Lives as long as the process, as every reader points to it.
    // Safety: written once by the initialiser of this constant, which Swift runs exactly once; only read afterwards.
    nonisolated(unsafe) static let table: UnsafeMutablePointer<redisReplyObjectFunctions> = {
        let table = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        table.initialize(
            to: redisReplyObjectFunctions(
                createString: { task, bytes, length in
                    HiredisCallbacks.write(task) { tape, type in
                        let source = UnsafeRawBufferPointer(start: bytes, count: length)
                        return switch type {
                        case REDIS_REPLY_STATUS: tape.appendString(source) { .status(offset: $0, length: $1) }
                        case REDIS_REPLY_ERROR: tape.appendString(source) { .error(offset: $0, length: $1) }
                        default: tape.appendString(source) { .bulk(offset: $0, length: $1) }
                        }
                    }
                },
                createArray: { task, count in HiredisCallbacks.write(task) { tape, _ in tape.appendArray(count: Int(count)) } },
                createInteger: { task, value in HiredisCallbacks.write(task) { tape, _ in tape.append(.integer(value)) } },
                createNil: { task in HiredisCallbacks.write(task) { tape, _ in tape.append(.null) } },
                freeObject: nil
            )
        )
        return table
    }()

    /// hiredis wants an object per element: any pointer but NULL, which means failure. The task itself is one, and nothing frees it.
    static func write(
        _ task: UnsafePointer<redisReadTask>?,
        _ body: (inout ReplyTape, _ type: Int32) -> Bool
    ) -> UnsafeMutableRawPointer? {
        guard let task, let privdata = task.pointee.privdata else { return nil }
        let isWritten = body(&privdata.assumingMemoryBound(to: ReplyTape.self).pointee, task.pointee.type)
        return isWritten ? UnsafeMutableRawPointer(mutating: task) : nil
    }
}
