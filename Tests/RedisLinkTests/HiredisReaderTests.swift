import NIOCore
import TestSupport
import Testing

@testable import RedisLink

@Suite(.timeLimit(.minutes(5)))
struct HiredisReaderTests {
    private func reader(bytesMax: Int = 8 << 20, elementsMax: Int = 1 << 16, feedBytes: Int = 64 << 10) -> HiredisReader {
        HiredisReader(bytesMax: bytesMax, elementsMax: elementsMax, feedBytes: feedBytes)
    }

    private func read(_ text: String, _ reader: HiredisReader? = nil) throws(RedisError) -> [RESPValue] {
        var replies: [RESPValue] = []
        try (reader ?? self.reader()).read(ByteBuffer(string: text)) { replies.append($0) }
        return replies
    }

    @Test func randomStreamsSplitAnywhereGiveTheSameReplies() async throws {
        for seed in 0..<3_000 {
            // The tests with real servers run beside this one, on the same threads.
            await Task.yield()
            var generator = SeededGenerator(seed: UInt64(seed))
            let expected = (0..<Int.random(in: 1...12, using: &generator)).map { _ in generator.reply() }
            var stream = ByteBuffer()
            for value in expected { value.encode(into: &stream) }
            let reader = reader(feedBytes: [1, 16, 1_000, 64 << 10].randomElement(using: &generator) ?? 16)
            var replies: [RESPValue] = []
            for piece in stream.split(using: &generator) { try reader.read(piece) { replies.append($0) } }
            #expect(replies == expected, "seed \(seed)")
        }
    }

    @Test func repliesKeepTheirBytesWhileTheStreamGoesOn() throws {
        var generator = SeededGenerator(seed: 7)
        let expected = (0..<4_000).map { _ in RESPValue.bulk(ByteBuffer(bytes: generator.bytes(upTo: 300))) }
        var stream = ByteBuffer()
        for value in expected { value.encode(into: &stream) }
        let reader = reader()
        var replies: [RESPValue] = []
        for piece in stream.split(using: &generator) { try reader.read(piece) { replies.append($0) } }
        #expect(replies == expected)
    }

    /// Flipped, dropped and doubled bytes: typed error, wrong values or nothing, but no crash, and no end of service
    /// for another reader.
    @Test func mutatedStreamsNeverCrash() async {
        var failures = 0
        for seed in 0..<5_000 {
            // The tests with real servers run beside this one, on the same threads.
            await Task.yield()
            var generator = SeededGenerator(seed: UInt64(seed) | 1 << 40)
            var stream = ByteBuffer()
            for _ in 0..<Int.random(in: 1...6, using: &generator) { generator.reply().encode(into: &stream) }
            var bytes = Array(buffer: stream)
            for _ in 0..<Int.random(in: 1...6, using: &generator) where !bytes.isEmpty {
                let index = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.remove(at: index)
                case 2: bytes.insert(bytes[index], at: index)
                default: bytes[index] = Array("$*:+-\r\n0919".utf8).randomElement(using: &generator) ?? 0
                }
            }
            let reader = reader(bytesMax: 100_000, elementsMax: 1_000)
            let isPush = Bool.random(using: &generator)
            do throws(RedisError) {
                for piece in ByteBuffer(bytes: bytes).split(using: &generator) {
                    if isPush { try reader.readPushes(piece) { _ in } } else { try reader.read(piece) { _ in } }
                }
            } catch {
                failures += 1
                #expect(error.code == .protocolViolation)
            }
        }
        #expect(failures > 1_000)
    }

    @Test(arguments: [
        "!x\r\n", "$abc\r\n", ":12x\r\n", "*x\r\n", "$-2\r\n", "*-2\r\n", ">2\r\n$1\r\na\r\n$1\r\nb\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    ])
    func brokenProtocolIsATypedErrorAndStaysOne(_ text: String) {
        let reader = reader()
        #expect(throws: RedisError.self) { try read(text, reader) }
        #expect(throws: RedisError.self) { try read("+OK\r\n", reader) }
    }

    @Test func repliesBeforeAnErrorAreDelivered() {
        var replies: [RESPValue] = []
        #expect(throws: RedisError.self) {
            try reader().read(ByteBuffer(string: "+OK\r\n:1\r\n?\r\n")) { replies.append($0) }
        }
        #expect(replies == [.status("OK"), .integer(1)])
        var messages = 0
        #expect(throws: RedisError.self) {
            try reader().readPushes(ByteBuffer(string: "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\np\r\n?\r\n")) { _ in messages += 1 }
        }
        #expect(messages == 1)
    }

    @Test func sizesAreLimited() throws {
        // Announced and arriving: refused once more than the limit is there, long before the end.
        let endless = reader(bytesMax: 10_000)
        #expect(try read("$1000000\r\n", endless).isEmpty)
        #expect(throws: RedisError.self) {
            for _ in 0..<20 { _ = try read(String(repeating: "x", count: 1_000), endless) }
        }
        // One element too many, refused at its header.
        #expect(throws: RedisError.self) { try read("*1001\r\n", reader(elementsMax: 1_000)) }
        #expect(throws: RedisError.self) { try read("*2147483647\r\n") }
        // Small elements count as well.
        #expect(throws: RedisError.self) {
            try read("*60000\r\n" + String(repeating: ":1\r\n", count: 60_000), reader(bytesMax: 10_000))
        }
        // The limit is one of a reply, not of the stream.
        #expect(try read(String(repeating: "$4\r\nabcd\r\n", count: 50_000), reader(bytesMax: 100_000)).count == 50_000)
    }

    @Test func pushesAreRecognised() throws {
        let text =
            "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\na\r\nb!\r\n"
            + "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n" + "*2\r\n$4\r\npong\r\n$0\r\n\r\n" + "+PONG\r\n" + "-ERR no\r\n"
            + "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
        for length in [1, 3, 17, 10_000] {
            let reader = reader()
            var seen: [String] = []
            var rest = ByteBuffer(string: text)
            while let piece = rest.readSlice(length: min(length, rest.readableBytes)), piece.readableBytes > 0 {
                try reader.readPushes(piece) { push in
                    switch push {
                    case .message(let channel, let payload): seen.append("message \(String(buffer: channel)) \(String(buffer: payload))")
                    case .subscribed(let channel): seen.append("subscribed \(channel)")
                    case .unsubscribed(let channel): seen.append("unsubscribed \(channel)")
                    case .pong: seen.append("pong")
                    case .error(let text): seen.append("error \(text)")
                    case .other: seen.append("other")
                    }
                }
            }
            #expect(
                seen == ["subscribed c", "message c a\r\nb!", "unsubscribed c", "pong", "pong", "error ERR no", "other"],
                "pieces of \(length)"
            )
        }
    }

    @Test func messagesOfRandomSplitsArriveWhole() async throws {
        for seed in 0..<200 {
            // The tests with real servers run beside this one, on the same threads.
            await Task.yield()
            var generator = SeededGenerator(seed: UInt64(seed) | 1 << 41)
            let expected = (0..<40).map { _ in generator.bytes(upTo: 400) }
            var stream = ByteBuffer()
            for payload in expected {
                RESPValue.array([.bulk(ByteBuffer(string: "message")), .bulk(ByteBuffer(string: "ch")), .bulk(ByteBuffer(bytes: payload))])
                    .encode(into: &stream)
            }
            let reader = reader(feedBytes: 16 << 10)
            var payloads: [ByteBuffer] = []
            for piece in stream.split(using: &generator) {
                try reader.readPushes(piece) { push in
                    if case .message(let channel, let payload) = push, String(buffer: channel) == "ch" { payloads.append(payload) }
                }
            }
            #expect(payloads.map { Array(buffer: $0) } == expected, "seed \(seed)")
        }
    }
}
