import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import JobStore

struct LiveEventTests {
    private func payload(seq: Int = 42, kind: String = "s", phase: Int = 2, flag: Int = 0, body: String = "{}") -> ByteBuffer {
        let hex = String(seq, radix: 16)
        return ByteBuffer(string: "1" + String(repeating: "0", count: 16 - hex.count) + hex + kind + "\(phase)\(flag) " + body)
    }

    @Test func headerIsReadAndBodyIsUntouched() throws {
        for (rank, phase) in Phase.allCases.enumerated() {
            let event = try #require(LiveEvent(payload: payload(seq: 1 << 40 + rank, phase: phase.rank, body: "{\"é\":1}")))
            #expect(event.phase == phase)
            #expect(event.seq == 1 << 40 + rank)
            #expect(String(buffer: event.body) == "{\"é\":1}")
        }
        #expect(LiveEvent(payload: payload(kind: "m"))?.kind == .milestone)
        #expect(LiveEvent(payload: payload(kind: "t"))?.kind == .terminal)
        #expect(LiveEvent(payload: payload(kind: "l"))?.kind == .lossy)
    }

    @Test func everyDamagedHeaderByteIsRefusedOrHarmless() {
        let good = payload()
        for index in 0..<LiveEvent.headerLength {
            for byte in UInt8.min...UInt8.max {
                var damaged = good
                damaged.setInteger(byte, at: index)
                guard let event = LiveEvent(payload: damaged) else { continue }
                // What still parses differs in a value, never in shape.
                #expect(event.body.readableBytes == 2 && event.seq >= 0)
            }
        }
        for length in 0...LiveEvent.headerLength {
            #expect(LiveEvent(payload: good.getSlice(at: 0, length: length) ?? ByteBuffer()) == nil)
        }
    }

    @Test func sequenceNumbersBeyondSixtyBitsAreRefused() {
        #expect(LiveEvent(payload: ByteBuffer(string: "1ffffffffffffffffs20 {}")) == nil)
    }
}

struct WireStateTests {
    @Test(arguments: [
        (0.9, "0.9"), (0.0, "0"), (12.345678, "12.35"), (123.456, "123.5"), (1234.5, "1235"), (0.00012345, "0.0001235"), (1.0, "1"),
        (0.10004, "0.1"), (999_999.9, "1000000"), (5e9, "1000000"), (1e-9, "0"),
    ])
    func speedsHaveFourSignificantDigits(value: Double, text: String) {
        #expect(WireState.significant(value) == text)
    }

    @Test func whatIsNoSpeedIsLeftOut() {
        for value in [Double.nan, .infinity, -.infinity, -1] { #expect(WireState.significant(value) == nil) }
    }

    @Test func speedsStayWithinFourDigitsOfTheirValue() {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<20_000 {
            let value = Double.random(in: 0.000_01...1, using: &generator) * [1, 10, 100, 10_000][Int.random(in: 0..<4, using: &generator)]
            let text = WireState.significant(value) ?? ""
            let back = Double(text) ?? -1
            #expect(abs(back - value) <= value * 0.000_6, "\(value) became \(text)")
            #expect(!text.contains("e"))
        }
    }

    @Test func percentsAreTenthsWithinBounds() {
        let cases: [(Double, Int)] = [
            (0, 0), (0.04, 0), (0.05, 1), (61.3, 613), (100, 1000), (1e300, 1000), (-5, 0), (.nan, 0), (.infinity, 1000),
        ]
        for (percent, tenths) in cases { #expect(WireState.tenths(percent) == tenths) }
    }
}

struct JSONTextTests {
    @Test func quotedTextIsReadBack() {
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<5000 {
            var text = ""
            for _ in 0..<Int.random(in: 0..<20, using: &generator) {
                let scalar = Unicode.Scalar(UInt32.random(in: 1..<0xd800, using: &generator)) ?? "x"
                text.unicodeScalars.append([scalar, "\"", "\\", "/", "\n", "\u{1}"].randomElement(using: &generator) ?? scalar)
            }
            let json = "{\"by\":\(JSONText.quoted(text)),\"reason\":\(JSONText.quoted(text + "!")),\"at\":1}"
            #expect(CancelRequest(json: json) == CancelRequest(by: text, reason: text + "!"))
        }
        #expect(CancelRequest(json: "{\"by\":\"unterminated") == nil)
        #expect(CancelRequest(json: "") == nil)
    }

    @Test func longErrorMessagesAreCutAtACharacter() {
        let error = JobError(code: "x", message: String(repeating: "é", count: 1000), isRecoverable: true)
        #expect(error.json.utf8.count < StoreLimits.textBytes + 60)
        #expect(error.json.hasSuffix("é\",\"recoverable\":true}"))
    }
}
