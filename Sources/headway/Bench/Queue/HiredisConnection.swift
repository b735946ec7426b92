import CHiredis
import Glibc

/// A blocking connection of plain hiredis: the yardstick beside our own link, and the eyes and ears of the benchmark.
///
/// Belongs to one thread at a time.
final class HiredisConnection {
    enum Reply {
        case null
        case integer(Int)
        case text(String)
        case array([Reply])

        var text: String? { if case .text(let text) = self { text } else { nil } }
        var integer: Int? { if case .integer(let number) = self { number } else { nil } }
        var array: [Reply]? { if case .array(let values) = self { values } else { nil } }
    }

    private let context: UnsafeMutablePointer<redisContext>

    init(port: Int) throws(CommandError) {
        guard let context = redisConnect("127.0.0.1", Int32(port)) else { throw CommandError(.failed, "no memory for a connection") }
        guard context.pointee.err == 0 else {
            redisFree(context)
            throw CommandError(.linkLost, "the benchmark's own redis-server does not take connections")
        }
        self.context = context
    }

    deinit { redisFree(context) }

    /// One command, one reply.
    @discardableResult
    func command(_ arguments: [String]) throws(CommandError) -> Reply {
        append(arguments)
        return try reply()
    }

    /// Queues a command; it leaves with the next ``reply()`` that has to wait.
    func append(_ arguments: [String]) {
        var bytes: [UInt8] = []
        var lengths: [Int] = []
        lengths.reserveCapacity(arguments.count)
        for argument in arguments {
            bytes.append(contentsOf: argument.utf8)
            lengths.append(argument.utf8.count)
        }
        // One more byte, so that an empty list has an address too.
        bytes.append(0)
        bytes.withUnsafeBufferPointer { all in
            withUnsafeTemporaryAllocation(of: UnsafePointer<CChar>?.self, capacity: lengths.count) { pointers in
                var offset = 0
                for (index, length) in lengths.enumerated() {
                    let start = all.baseAddress.map { UnsafeRawPointer($0 + offset).assumingMemoryBound(to: CChar.self) }
                    pointers.initializeElement(at: index, to: start)
                    offset += length
                }
                _ = redisAppendCommandArgv(context, Int32(lengths.count), pointers.baseAddress, lengths)
            }
        }
    }

    /// The next reply; an error reply is an error.
    @discardableResult
    func reply() throws(CommandError) -> Reply {
        var raw: UnsafeMutableRawPointer?
        guard redisGetReply(context, &raw) == REDIS_OK, let raw else {
            throw CommandError(.linkLost, "the benchmark's redis-server hung up")
        }
        defer { freeReplyObject(raw) }
        return try Self.value(raw.assumingMemoryBound(to: redisReply.self))
    }

    /// Replies that have arrived within `milliseconds`, for a connection that is spoken to unasked (`MONITOR`).
    func arrived(within milliseconds: Int32) throws(CommandError) -> [Reply] {
        var poll = pollfd(fd: context.pointee.fd, events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&poll, 1, milliseconds) > 0 else { return [] }
        guard redisBufferRead(context) == REDIS_OK else { throw CommandError(.linkLost, "the benchmark's redis-server hung up") }
        var replies: [Reply] = []
        while true {
            var raw: UnsafeMutableRawPointer?
            guard redisGetReplyFromReader(context, &raw) == REDIS_OK else {
                throw CommandError(.linkLost, "the benchmark's redis-server speaks another protocol")
            }
            guard let raw else { return replies }
            defer { freeReplyObject(raw) }
            replies.append(try Self.value(raw.assumingMemoryBound(to: redisReply.self)))
        }
    }

    private static func value(_ reply: UnsafeMutablePointer<redisReply>) throws(CommandError) -> Reply {
        let text = { String(decoding: UnsafeRawBufferPointer(start: reply.pointee.str, count: reply.pointee.len), as: UTF8.self) }
        switch reply.pointee.type {
        case REDIS_REPLY_NIL: return .null
        case REDIS_REPLY_INTEGER: return .integer(Int(reply.pointee.integer))
        case REDIS_REPLY_ERROR: throw CommandError(.failed, "redis: \(text())")
        case REDIS_REPLY_ARRAY:
            var values: [Reply] = []
            for index in 0..<reply.pointee.elements {
                guard let element = reply.pointee.element[index] else { continue }
                values.append(try value(element))
            }
            return .array(values)
        default: return .text(text())
        }
    }
}
