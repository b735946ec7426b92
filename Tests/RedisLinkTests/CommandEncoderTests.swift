import NIOCore
import TestSupport
import Testing

@testable import RedisLink

struct CommandEncoderTests {
    /// Every command is read back by the parser as an array of bulks with the same bytes.
    @Test func randomCommandsAreReadBack() async throws {
        for seed in 0..<2_000 {
            // The tests with real servers run beside this one, on the same threads.
            await Task.yield()
            var generator = SeededGenerator(seed: UInt64(seed) | 1 << 42)
            var expected: [[UInt8]] = []
            let command = (0..<Int.random(in: 1...20, using: &generator)).map { _ -> RedisArgument in
                switch Int.random(in: 0..<3, using: &generator) {
                case 0:
                    let text = generator.line(upTo: 60)
                    expected.append(Array(text.utf8))
                    return .string(text)
                case 1:
                    let number = Int.random(in: .min ... .max, using: &generator)
                    expected.append(Array("\(number)".utf8))
                    return .int(number)
                default:
                    let bytes = generator.bytes(upTo: 2_000)
                    expected.append(bytes)
                    return .buffer(ByteBuffer(bytes: bytes))
                }
            }
            var encoded = ByteBuffer()
            try CommandEncoder.encode(command, into: &encoded, limits: RedisLimits())
            var replies: [RESPValue] = []
            try HiredisReader(bytesMax: 1 << 20, elementsMax: 100, feedBytes: 4_096).read(encoded) { replies.append($0) }
            #expect(replies == [.array(expected.map { .bulk(ByteBuffer(bytes: $0)) })], "seed \(seed)")
        }
    }

    @Test func spellsRESP() throws {
        var encoded = ByteBuffer()
        try CommandEncoder.encode(["SET", "k\r\n", .int(-5), .buffer(ByteBuffer())], into: &encoded, limits: RedisLimits())
        #expect(String(buffer: encoded) == "*4\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$2\r\n-5\r\n$0\r\n\r\n")
    }

    @Test func spellsAScriptAsItsCommand() async throws {
        var generator = SeededGenerator(seed: 1 << 44)
        for _ in 0..<200 {
            let keys = (0..<Int.random(in: 0...3, using: &generator)).map { _ in generator.line(upTo: 40) }
            let arguments = (0..<Int.random(in: 0...12, using: &generator)).map { index -> RedisArgument in
                index % 3 == 0 ? .int(Int.random(in: -200...20_000, using: &generator)) : .string(generator.line(upTo: 300))
            }
            var (script, command) = (ByteBuffer(), ByteBuffer())
            try CommandEncoder.encode("EVALSHA", script: "abc", keys: keys, arguments: arguments, into: &script, limits: RedisLimits())
            let whole = ["EVALSHA", "abc", .int(keys.count)] + keys.map { RedisArgument.string($0) } + arguments
            try CommandEncoder.encode(whole, into: &command, limits: RedisLimits())
            #expect(script == command)
        }
        var encoded = ByteBuffer()
        try CommandEncoder.encode([.int(.min), .int(.max), .int(0)], into: &encoded, limits: RedisLimits())
        #expect(String(buffer: encoded) == "*3\r\n$20\r\n\(Int.min)\r\n$19\r\n\(Int.max)\r\n$1\r\n0\r\n")
    }

    @Test func limitsAreTypedErrors() {
        var limits = RedisLimits()
        limits.commandArgumentsMax = 3
        limits.commandBytesMax = 1_000
        for command: [RedisArgument] in [
            [], ["A", "B", "C", "D"], ["SET", .buffer(ByteBuffer(repeating: 0, count: 1_000))],
        ] {
            var encoded = ByteBuffer()
            #expect {
                try CommandEncoder.encode(command, into: &encoded, limits: limits)
            } throws: {
                ($0 as? RedisError)?.code == .invalidConfiguration
            }
            #expect(encoded.readableBytes == 0)
        }
    }
}
