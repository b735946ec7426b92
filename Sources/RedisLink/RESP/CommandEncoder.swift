import CHiredis
import NIOCore

/// Commands as RESP arrays of bulk strings, written by hiredis' `redisFormatCommandArgv`.
enum CommandEncoder {
    /// Appends the encoded `command`.
    static func encode(_ command: [RedisArgument], into buffer: inout ByteBuffer, limits: RedisLimits) throws(RedisError) {
        guard !command.isEmpty else { throw RedisError(.invalidConfiguration, "a command needs at least its name") }
        guard command.count <= limits.commandArgumentsMax else {
            throw RedisError(
                .invalidConfiguration,
                "a command of \(command.count) arguments; at most \(limits.commandArgumentsMax): split it"
            )
        }
        // 20 digits are room for any Int.
        let size = command.reduce(0) { $0 + ($1.sizeBytes ?? 20) }
        // 24: `$<digits>\r\n…\r\n` of each argument.
        guard size + 24 * command.count <= limits.commandBytesMax else {
            throw RedisError(.invalidConfiguration, "a command of \(size) bytes; at most \(limits.commandBytesMax)")
        }
        let isEncoded = withUnsafeTemporaryAllocation(byteCount: size + 1, alignment: 1) { scratch in
            withUnsafeTemporaryAllocation(of: UnsafePointer<CChar>?.self, capacity: command.count) { pointers in
                withUnsafeTemporaryAllocation(of: Int.self, capacity: command.count) { lengths in
                    format(command, scratch: scratch, pointers: pointers, lengths: lengths, into: &buffer)
                }
            }
        }
        guard isEncoded else { throw RedisError(.invalidConfiguration, "no memory for a command of \(size) bytes") }
    }

    /// hiredis wants one pointer per argument that is valid until it returns: all arguments are copied side by side into `scratch`.
    private static func format(
        _ command: [RedisArgument],
        scratch: UnsafeMutableRawBufferPointer,
        pointers: UnsafeMutableBufferPointer<UnsafePointer<CChar>?>,
        lengths: UnsafeMutableBufferPointer<Int>,
        into buffer: inout ByteBuffer
    ) -> Bool {
        var offset = 0
        for (index, argument) in command.enumerated() {
            let room = UnsafeMutableRawBufferPointer(rebasing: scratch[offset...])
            let length = argument.copy(into: room)
            pointers.initializeElement(at: index, to: room.baseAddress.map { UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self) })
            lengths.initializeElement(at: index, to: length)
            offset += length
        }
        var formatted: UnsafeMutablePointer<CChar>?
        let total = redisFormatCommandArgv(&formatted, Int32(command.count), pointers.baseAddress, lengths.baseAddress)
        guard total > 0, let formatted else { return false }
        defer { redisFreeCommand(formatted) }
        buffer.writeBytes(UnsafeRawBufferPointer(start: formatted, count: Int(total)))
        return true
    }
}

extension RedisArgument {
    /// Nil for an integer, whose digits are counted when they are written.
    fileprivate var sizeBytes: Int? {
        switch self {
        case .string(let text): text.utf8.count
        case .buffer(let bytes): bytes.readableBytes
        case .int: nil
        }
    }

    /// The number of bytes copied.
    fileprivate func copy(into room: UnsafeMutableRawBufferPointer) -> Int {
        switch self {
        case .buffer(let bytes):
            bytes.withUnsafeReadableBytes { room.copyMemory(from: $0) }
            return bytes.readableBytes
        case .string(let text): return Self.copy(text, into: room)
        case .int(let value): return Self.copy(String(value), into: room)
        }
    }

    private static func copy(_ text: String, into room: UnsafeMutableRawBufferPointer) -> Int {
        var text = text
        return text.withUTF8 { bytes in
            room.copyMemory(from: UnsafeRawBufferPointer(bytes))
            return bytes.count
        }
    }
}
