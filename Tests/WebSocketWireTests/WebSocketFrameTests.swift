import NIOCore
import TestSupport
import Testing

@testable import WebSocketWire

struct WebSocketFrameTests {
    @Test(arguments: [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
    func isReadBackByTheOtherEnd(_ count: Int) {
        let payload = ByteBuffer(repeating: 0x61, count: count)
        let server = WebSocketFrame.make(.text, payload)
        #expect(server.readableBytes == WebSocketFrame.headerBytes(payload: count) + count)
        #expect(parse(bytes(server), role: .client, limit: count).messages == [.text(payload)])
        let client = WebSocketFrame.make(.binary, payload, mask: 0xDEAD_BEEF)
        #expect(parse(bytes(client), role: .server, limit: count).messages == [.binary(payload)])
    }

    @Test func cutsALongReasonAtACharacter() {
        let frame = WebSocketFrame.close(.serviceRestart, reason: String(repeating: "é", count: 100))
        #expect(parse(bytes(frame), role: .client).messages == [.close(.serviceRestart, reason: String(repeating: "é", count: 61))])
    }
}

struct WebSocketHandshakeTests {
    // RFC 6455 §1.3
    @Test func answersTheKeyOfTheRFC() {
        #expect(WebSocketHandshake.accept(forKey: "dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        #expect(WebSocketHandshake.isValidKey("dGhlIHNhbXBsZSBub25jZQ=="))
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBs\r\nSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==="] {
            #expect(!WebSocketHandshake.isValidKey(bad), "\(bad)")
        }
    }

    // FIPS 180-4 examples, and lengths around the block boundary compared with sha1sum.
    @Test(arguments: [
        ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
        (String(repeating: "a", count: 55), "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
        (String(repeating: "a", count: 64), "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
    ])
    func hashesKnownMessages(_ text: String, _ digest: String) {
        let hex = SHA1.digest(Array(text.utf8)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }
        #expect(hex.joined() == digest)
    }

    @Test func clientAcceptsTheServersAnswerInAnyPieces() throws {
        var generator = SeededGenerator(seed: 3)
        let key = WebSocketHandshake.makeKey(using: &generator)
        #expect(WebSocketHandshake.isValidKey(key))
        let answer = bytes(WebSocketHandshake.response(key: key, subprotocol: "headway.v1.json")) + [0x81, 0x00]
        for cut in 1..<answer.count - 2 {
            var client = WebSocketClientHandshake(key: key)
            #expect(try client.receive(ByteBuffer(bytes: answer[..<cut]))?.subprotocol == nil)
            let accepted = try #require(try client.receive(ByteBuffer(bytes: answer[cut...])))
            #expect(accepted.subprotocol == "headway.v1.json")
            #expect(bytes(accepted.leftover) == [0x81, 0x00])
        }
    }

    @Test func clientRefusesEverythingElse() {
        let key = "dGhlIHNhbXBsZSBub25jZQ=="
        let good = String(buffer: WebSocketHandshake.response(key: key))
        for bad in [
            good.replacing("101", with: "200"), good.replacing("s3pP", with: "s3pQ"), good.replacing("upgrade: websocket\r\n", with: ""),
            "SSH-2.0-OpenSSH\r\n\r\n", String(repeating: "x", count: 20_000),
        ] {
            var client = WebSocketClientHandshake(key: key)
            #expect(throws: WebSocketError.self) { try client.receive(ByteBuffer(string: bad)) }
        }
    }
}
