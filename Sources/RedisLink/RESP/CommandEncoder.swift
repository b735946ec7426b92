import CHiredis
import NIOCore

/// Commands as RESP arrays of bulk strings, written by hiredis' `redisFormatCommandArgv`.
enum CommandEncoder {
    /// Appends the encoded `command`.
    static func encode(_ command: [RedisArgument], into buffer: inout ByteBuffer, limits: RedisLimits) throws(RedisError) {
        guard !command.isEmpty else { throw RedisError(.invalidConfiguration, "a command needs at least its name") }
        try encode(count: command.count, bytes: size(command), into: &buffer, limits) { list in
            for argument in command { list.add(argument) }
        }
    }

    /// Appends `verb script count keys… arguments…`.
    static func encode(
        _ verb: StaticString,
        script: String,
        keys: [String],
        arguments: [RedisArgument],
        into buffer: inout ByteBuffer,
        limits: RedisLimits
    ) throws(RedisError) {
        let bytes =
            verb.utf8CodeUnitCount + script.utf8.count + RedisArgument.digitsMax + keys.reduce(0) { $0 + $1.utf8.count }
            + size(arguments)
        try encode(count: 3 + keys.count + arguments.count, bytes: bytes, into: &buffer, limits) { list in
            list.add(UnsafeRawBufferPointer(start: verb.utf8Start, count: verb.utf8CodeUnitCount))
            list.add(script)
            list.add(keys.count)
            for key in keys { list.add(key) }
            for argument in arguments { list.add(argument) }
        }
    }

    private static func size(_ arguments: [RedisArgument]) -> Int { arguments.reduce(0) { $0 + $1.sizeBytes } }

    /// - Parameters:
    ///   - count: of the arguments that `fill` adds.
    ///   - bytes: that they have together, at most.
    private static func encode(
        count: Int,
        bytes: Int,
        into buffer: inout ByteBuffer,
        _ limits: RedisLimits,
        _ fill: (inout ArgumentList) -> Void
    ) throws(RedisError) {
        guard count <= limits.commandArgumentsMax else {
            throw RedisError(.invalidConfiguration, "a command of \(count) arguments; at most \(limits.commandArgumentsMax): split it")
        }
        // 24: `$<digits>\r\n…\r\n` of each argument.
        guard bytes + 24 * count <= limits.commandBytesMax else {
            throw RedisError(.invalidConfiguration, "a command of \(bytes) bytes; at most \(limits.commandBytesMax)")
        }
        let isEncoded = withUnsafeTemporaryAllocation(byteCount: bytes + 1, alignment: 1) { scratch in
            withUnsafeTemporaryAllocation(of: UnsafePointer<CChar>?.self, capacity: count) { pointers in
                withUnsafeTemporaryAllocation(of: Int.self, capacity: count) { lengths in
                    var list = ArgumentList(scratch: scratch, pointers: pointers, lengths: lengths)
                    fill(&list)
                    return list.format(into: &buffer)
                }
            }
        }
        guard isEncoded else { throw RedisError(.invalidConfiguration, "no memory for a command of \(bytes) bytes") }
    }
}

/// hiredis wants one pointer per argument that is valid until it returns: all arguments are copied side by side into `scratch`.
private struct ArgumentList {
    let scratch: UnsafeMutableRawBufferPointer
    let pointers: UnsafeMutableBufferPointer<UnsafePointer<CChar>?>
    let lengths: UnsafeMutableBufferPointer<Int>
    private var offset = 0
    private var count = 0

    init(
        scratch: UnsafeMutableRawBufferPointer,
        pointers: UnsafeMutableBufferPointer<UnsafePointer<CChar>?>,
        lengths: UnsafeMutableBufferPointer<Int>
    ) {
        self.scratch = scratch
        self.pointers = pointers
        self.lengths = lengths
    }

    mutating func add(_ argument: RedisArgument) {
        switch argument {
        case .string(let text): add(text)
        case .int(let value): add(value)
        case .buffer(let bytes): bytes.withUnsafeReadableBytes { add($0) }
        }
    }

    mutating func add(_ value: Int) { add(String(value)) }

    mutating func add(_ text: String) {
        var text = text
        text.withUTF8 { add(UnsafeRawBufferPointer($0)) }
    }

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        let room = UnsafeMutableRawBufferPointer(rebasing: scratch[offset...])
        room.copyMemory(from: bytes)
        pointers.initializeElement(at: count, to: room.baseAddress.map { UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self) })
        lengths.initializeElement(at: count, to: bytes.count)
        offset += bytes.count
        count += 1
    }

    /// False when hiredis has no memory.
    func format(into buffer: inout ByteBuffer) -> Bool {
        var formatted: UnsafeMutablePointer<CChar>?
        let total = redisFormatCommandArgv(&formatted, Int32(count), pointers.baseAddress, lengths.baseAddress)
        guard total > 0, let formatted else { return false }
        defer { redisFreeCommand(formatted) }
        buffer.writeBytes(UnsafeRawBufferPointer(start: formatted, count: Int(total)))
        return true
    }
}

extension RedisArgument {
    /// Room for any Int.
    fileprivate static let digitsMax = 20

    /// The most for an integer, whose digits are counted when they are written.
    fileprivate var sizeBytes: Int {
        switch self {
        case .string(let text): text.utf8.count
        case .buffer(let bytes): bytes.readableBytes
        case .int: Self.digitsMax
        }
    }
}
