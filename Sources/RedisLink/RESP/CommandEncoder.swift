import NIOCore

/// Commands as RESP arrays of bulk strings (<https://redis.io/docs/latest/develop/reference/protocol-spec/>), written where they
/// are sent from.
enum CommandEncoder {
    /// Appends the encoded `command`.
    static func encode(_ command: [RedisArgument], into buffer: inout ByteBuffer, limits: RedisLimits) throws(RedisError) {
        guard !command.isEmpty else { throw RedisError(.invalidConfiguration, "a command needs at least its name") }
        let room = try room(count: command.count, bytes: size(command), limits)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { target in
            var writer = CommandWriter(target)
            writer.head(command.count)
            for argument in command { writer.write(argument) }
            return writer.count
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
        let count = 3 + keys.count + arguments.count
        let bytes = verb.utf8CodeUnitCount + script.utf8.count + keys.reduce(0) { $0 + $1.utf8.count } + size(arguments)
        let room = try room(count: count, bytes: bytes, limits)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { target in
            var writer = CommandWriter(target)
            writer.head(count)
            writer.write(UnsafeRawBufferPointer(start: verb.utf8Start, count: verb.utf8CodeUnitCount))
            writer.write(script)
            writer.write(keys.count)
            for key in keys { writer.write(key) }
            for argument in arguments { writer.write(argument) }
            return writer.count
        }
    }

    private static func size(_ arguments: [RedisArgument]) -> Int { arguments.reduce(0) { $0 + $1.sizeBytes } }

    /// Bytes that a command takes at most; checked before anything is allocated.
    private static func room(count: Int, bytes: Int, _ limits: RedisLimits) throws(RedisError) -> Int {
        guard count <= limits.commandArgumentsMax else {
            throw RedisError(.invalidConfiguration, "a command of \(count) arguments; at most \(limits.commandArgumentsMax): split it")
        }
        let room = bytes + CommandWriter.overhead * (count + 1)
        guard room <= limits.commandBytesMax else {
            throw RedisError(.invalidConfiguration, "a command of \(bytes) bytes; at most \(limits.commandBytesMax)")
        }
        return room
    }
}

/// Writes into memory that is large enough: `CommandEncoder.room` says how large. A smaller one is a trap, not an overrun.
private struct CommandWriter {
    /// `$<digits>\r\n…\r\n` around an argument, or `*<digits>\r\n`.
    static let overhead = 24

    private let target: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    init(_ target: UnsafeMutableRawBufferPointer) { self.target = target }

    mutating func head(_ arguments: Int) { line(UInt8(ascii: "*"), arguments) }

    mutating func write(_ argument: RedisArgument) {
        switch argument {
        case .string(let text): write(text)
        case .int(let value): write(value)
        case .buffer(let bytes): bytes.withUnsafeReadableBytes { write($0) }
        }
    }

    mutating func write(_ text: String) {
        var text = text
        text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer) {
        line(UInt8(ascii: "$"), bytes.count)
        UnsafeMutableRawBufferPointer(rebasing: target[count...]).copyMemory(from: bytes)
        count += bytes.count
        end()
    }

    mutating func write(_ value: Int) {
        line(UInt8(ascii: "$"), Self.digits(value))
        decimal(value)
        end()
    }

    private mutating func line(_ type: UInt8, _ number: Int) {
        byte(type)
        decimal(number)
        end()
    }

    private mutating func end() {
        byte(UInt8(ascii: "\r"))
        byte(UInt8(ascii: "\n"))
    }

    private mutating func byte(_ byte: UInt8) {
        target[count] = byte
        count += 1
    }

    private mutating func decimal(_ value: Int) {
        let digits = Self.digits(value)
        var rest = value.magnitude
        var index = count + digits
        repeat {
            index -= 1
            target[index] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        } while rest > 0
        if value < 0 { target[count] = UInt8(ascii: "-") }
        count += digits
    }

    private static func digits(_ value: Int) -> Int {
        var (rest, count) = (value.magnitude / 10, value < 0 ? 2 : 1)
        while rest > 0 {
            rest /= 10
            count += 1
        }
        return count
    }
}

extension RedisArgument {
    /// The most for an integer, whose digits are counted when they are written.
    fileprivate var sizeBytes: Int {
        switch self {
        case .string(let text): text.utf8.count
        case .buffer(let bytes): bytes.readableBytes
        case .int: 20
        }
    }
}
