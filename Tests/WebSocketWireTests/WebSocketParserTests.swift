import NIOCore
import TestSupport
import Testing

@testable import WebSocketWire

struct WebSocketParserTests {
    // RFC 6455 §5.7
    @Test func readsTheExamplesOfTheRFC() {
        let unmasked = parse([0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], role: .client)
        #expect(unmasked.messages == [.text(ByteBuffer(string: "Hello"))])
        let masked = parse([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58])
        #expect(masked.messages == [.text(ByteBuffer(string: "Hello"))])
        let fragmented = parse([0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f], role: .client)
        #expect(fragmented.messages == [.text(ByteBuffer(string: "Hello"))])
        let ping = parse([0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], role: .client)
        #expect(ping.messages == [.ping(ByteBuffer(string: "Hello"))])
        let medium = parse([0x82, 0x7E, 0x01, 0x00] + [UInt8](repeating: 7, count: 256), role: .client)
        #expect(medium.messages == [.binary(ByteBuffer(repeating: 7, count: 256))])
        let large = parse(
            [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0] + [UInt8](repeating: 9, count: 65_536),
            role: .client,
            limit: 65_536
        )
        #expect(large.messages == [.binary(ByteBuffer(repeating: 9, count: 65_536))])
    }

    @Test(arguments: [
        ([0xC1, 0x80, 0, 0, 0, 0], WebSocketError.Code.protocolViolation),  // a reserved bit
        ([0x83, 0x80, 0, 0, 0, 0], .protocolViolation),  // a reserved opcode
        ([0x81, 0x05], .protocolViolation),  // not masked
        ([0x80, 0x80, 0, 0, 0, 0], .protocolViolation),  // a continuation of nothing
        ([0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], .protocolViolation),  // a message inside a message
        ([0x09, 0x80, 0, 0, 0, 0], .protocolViolation),  // a fragmented ping
        ([0x89, 0xFE, 0, 126, 0, 0, 0, 0], .protocolViolation),  // a long ping
        ([0x81, 0xFE, 0, 125, 0, 0, 0, 0], .protocolViolation),  // not the shortest length
        ([0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0], .protocolViolation),
        ([0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], .protocolViolation),
        ([0x81, 0xFE, 0x20, 0x01, 0, 0, 0, 0], .messageTooBig),  // declared, nothing sent yet
        ([0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], .messageTooBig),
        ([0x88, 0x81, 0, 0, 0, 0, 3], .protocolViolation),  // a close of one byte
        ([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xED], .protocolViolation),  // 1005
        ([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE7], .protocolViolation),  // 999
        ([0x88, 0x83, 0, 0, 0, 0, 0x03, 0xE8, 0xFF], .invalidUTF8),
        ([0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28], .invalidUTF8),
        ([0x81, 0x81, 0, 0, 0, 0, 0xC3], .invalidUTF8),  // cut inside a character
        ([0x01, 0x81, 0, 0, 0, 0, 0xED, 0x80, 0x81, 0, 0, 0, 0, 0xA0], .invalidUTF8),  // a surrogate over two frames
    ])
    func refuses(_ input: [UInt8], as code: WebSocketError.Code) {
        let result = parse(input)
        #expect(result.error?.code == code)
        #expect(result.messages.isEmpty)
    }

    @Test func countsAllFragmentsAgainstTheLimit() {
        let piece = bytes(WebSocketFrame.make(.text, ByteBuffer(repeating: 0x61, count: 60), isFinal: false, mask: 1))
        let more = bytes(WebSocketFrame.make(.continuation, ByteBuffer(repeating: 0x61, count: 60), mask: 2))
        #expect(parse(piece + more, limit: 119).error?.code == .messageTooBig)
        #expect(parse(piece + more, limit: 120).messages == [.text(ByteBuffer(repeating: 0x61, count: 120))])
    }

    @Test func letsControlFramesThroughBetweenFragments() {
        let stream =
            bytes(WebSocketFrame.make(.text, ByteBuffer(bytes: [0xC3]), isFinal: false, mask: 5))
            + bytes(WebSocketFrame.make(.ping, ByteBuffer(string: "x"), mask: 6))
            + bytes(WebSocketFrame.make(.continuation, ByteBuffer(bytes: [0xA9]), mask: 7))
        #expect(parse(stream).messages == [.ping(ByteBuffer(string: "x")), .text(ByteBuffer(string: "é"))])
    }

    @Test func ignoresWhatFollowsAClose() {
        let stream = bytes(WebSocketFrame.close(.normal, reason: "bye", mask: 9)) + [0xFF, 0xFF, 0xFF]
        let result = parse(stream)
        #expect(result.messages == [.close(.normal, reason: "bye")])
        #expect(result.error == nil)
        #expect(parse([0x88, 0x80, 0, 0, 0, 0]).messages == [.close(nil, reason: "")])
    }

    @Test(.timeLimit(.minutes(5))) func readsTheSameMessagesHoweverTheyAreCut() {
        for seed in UInt64(1)...2000 {
            var generator = SeededGenerator(seed: seed)
            let (stream, expected) = Self.randomStream(&generator)
            var splits = generator
            let result = parse(stream, limit: 70_000) { Int.random(in: 1...97, using: &splits) * (Bool.random(using: &splits) ? 1 : 40) }
            #expect(result.error == nil, "seed \(seed)")
            #expect(result.messages == expected, "seed \(seed)")
        }
    }

    @Test(.timeLimit(.minutes(5))) func survivesGarbage() {
        for seed in UInt64(1)...4000 {
            var generator = SeededGenerator(seed: seed)
            var (stream, _) = Self.randomStream(&generator, longest: 300)
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                stream[Int.random(in: 0..<stream.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            if seed % 2 == 0 { stream = (0..<200).map { _ in UInt8.random(in: 0...255, using: &generator) } }
            var splits = generator
            let result = parse(stream, limit: 1024) { Int.random(in: 1...40, using: &splits) }
            for case .text(let text) in result.messages {
                #expect(String(validating: text.readableBytesView, as: UTF8.self) != nil, "seed \(seed)")
                #expect(text.readableBytes <= 1024, "seed \(seed)")
            }
        }
    }

    /// Masked frames of random messages, some fragmented, with pings between, and what must come out.
    private static func randomStream(
        _ generator: inout SeededGenerator,
        longest: Int = 66_000
    ) -> (bytes: [UInt8], messages: [WebSocketParser.Message]) {
        var stream = ByteBuffer()
        var expected: [WebSocketParser.Message] = []
        for _ in 0..<Int.random(in: 1...6, using: &generator) {
            let isLong = Int.random(in: 0..<20, using: &generator) == 0
            let count = Int.random(in: 0...(isLong ? longest : 200), using: &generator)
            let isText = Bool.random(using: &generator)
            let alphabet = ["a", "ß", "€", "😀"]
            let payload =
                isText
                ? ByteBuffer(string: (0..<count / 4).map { _ in alphabet[Int.random(in: 0..<4, using: &generator)] }.joined())
                : ByteBuffer(bytes: (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
            var rest = payload
            var opcode: WebSocketFrame.Opcode = isText ? .text : .binary
            while Bool.random(using: &generator), rest.readableBytes > 0 {
                let part = rest.readSlice(length: Int.random(in: 0...rest.readableBytes, using: &generator)) ?? ByteBuffer()
                WebSocketFrame.append(opcode, part, isFinal: false, mask: .random(in: 0...UInt32.max, using: &generator), to: &stream)
                opcode = .continuation
                if Bool.random(using: &generator) {
                    WebSocketFrame.append(.ping, ByteBuffer(string: "p"), mask: .random(in: 0...UInt32.max, using: &generator), to: &stream)
                    expected.append(.ping(ByteBuffer(string: "p")))
                }
            }
            WebSocketFrame.append(opcode, rest, mask: .random(in: 0...UInt32.max, using: &generator), to: &stream)
            expected.append(isText ? .text(payload) : .binary(payload))
        }
        return (bytes(stream), expected)
    }
}

struct UTF8ValidatorTests {
    @Test func agreesWithTheStandardLibraryOnRandomBytes() {
        var generator = SeededGenerator(seed: 7)
        let interesting: [UInt8] = [
            0x00, 0x7F, 0x80, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0x9F, 0xA0, 0xED, 0xEF, 0xF0, 0x8F, 0x90, 0xF4, 0xF5, 0xFF, 0x41,
        ]
        for _ in 0..<200_000 {
            let text = (0..<Int.random(in: 0...12, using: &generator)).map { _ in interesting.randomElement(using: &generator) ?? 0 }
            var validator = UTF8Validator()
            let cut = Int.random(in: 0...text.count, using: &generator)
            let isValid =
                text[..<cut].withUnsafeBytes { validator.accept($0) } && text[cut...].withUnsafeBytes { validator.accept($0) }
                && validator.isComplete
            #expect(isValid == (String(validating: text, as: UTF8.self) != nil), "\(text)")
        }
    }
}
