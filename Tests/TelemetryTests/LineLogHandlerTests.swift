import Glibc
import Logging
import Synchronization
import Telemetry
import Testing

@Suite(.timeLimit(.minutes(5))) struct LineLogHandlerTests {
    /// Keeps what a logger wrote.
    private final class Sink: Sendable {
        private let written = Mutex<[[UInt8]]>([])
        func write(_ line: [UInt8]) { written.withLock { $0.append(line) } }
        var lines: [String] { written.withLock { $0.map { String(decoding: $0, as: UTF8.self) } } }
        var bytes: [[UInt8]] { written.withLock { $0 } }
    }

    private func logger(_ sink: Sink, format: LineLogHandler.Format = .text, atMs: Int = 1_767_225_600_123) -> Logger {
        Logger(label: "gateway") { label in
            LineLogHandler(label: label, format: format, level: .debug, nowMs: { atMs }, write: sink.write)
        }
    }

    @Test func aTextLineReadsTimeLevelMessageThenSortedKeys() {
        let sink = Sink()
        var log = logger(sink)
        log[metadataKey: LogKey.workerID] = "w1"
        log.warning("lease lost", metadata: [LogKey.jobID: "01j", LogKey.errorMessage: "two words"])
        #expect(sink.lines == ["2026-01-01T00:00:00.123Z warning lease lost error.message=\"two words\" job.id=01j worker.id=w1\n"])
    }

    /// The date is counted here and not by the C library, which says the same of every day.
    @Test func everyDayHasItsDate() {
        var days = (0..<100_000).map { $0 * 86_400 }
        // Years 385 to 9890, at all times of the day.
        days += (0..<3000).map { $0 * 100_000_007 - 50_000_000_000 }
        for seconds in days {
            var time = time_t(seconds)
            var parts = tm()
            gmtime_r(&time, &parts)
            let numbers =
                [Int(parts.tm_year) + 1900, Int(parts.tm_mon) + 1, Int(parts.tm_mday)]
                + [parts.tm_hour, parts.tm_min, parts.tm_sec].map(Int.init)
            let texts = numbers.enumerated().map { index, number in
                let text = String(number)
                return String(repeating: "0", count: (index == 0 ? 4 : 2) - text.count) + text
            }
            let expected = "\(texts[0])-\(texts[1])-\(texts[2])T\(texts[3]):\(texts[4]):\(texts[5]).007Z"
            let sink = Sink()
            logger(sink, atMs: seconds * 1000 + 7).info("m")
            #expect(sink.lines.first?.hasPrefix(expected) == true, "\(expected): \(sink.lines)")
        }
    }

    @Test func aJSONLineIsOneObject() {
        let sink = Sink()
        logger(sink, format: .json).info("said \"hi\"", metadata: ["k\n": "a\\b\u{7}"])
        #expect(
            sink.lines == [
                "{\"time\":\"2026-01-01T00:00:00.123Z\",\"level\":\"info\",\"logger\":\"gateway\",\"message\":\"said \\\"hi\\\"\","
                    + "\"k\\n\":\"a\\\\b\\u0007\"}\n"
            ]
        )
    }

    @Test func theCallSiteWinsOverTheLogger() {
        let sink = Sink()
        var log = logger(sink)
        log[metadataKey: "k"] = "old"
        log.info("m", metadata: ["k": "new"])
        log.info("m")
        #expect(sink.lines.map { $0.hasSuffix("k=new\n") } == [true, false])
    }

    @Test func levelsBelowAreDropped() {
        let sink = Sink()
        let log = logger(sink)
        log.trace("no")
        log.debug("yes")
        #expect(sink.lines.count == 1)
    }

    /// Whatever is logged, it stays on one line, holds no control byte, and is bounded.
    @Test(arguments: LineLogHandler.Format.allCases) func hostileValuesStayOnTheirLine(format: LineLogHandler.Format) {
        let sink = Sink()
        let log = logger(sink, format: format)
        var state: UInt64 = 42
        func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
        for _ in 0..<3000 {
            var value = ""
            for _ in 0..<(next() % 40) {
                let scalar = next() % 4 == 0 ? UInt32(next() % 0xa0) : UInt32(next() % 0x11_0000)
                if let scalar = Unicode.Scalar(scalar) { value.unicodeScalars.append(scalar) }
            }
            log.info("\(value)", metadata: ["\(value)": "\(value)", "\n": "\(value)"])
        }
        log.info("long", metadata: ["k": "\(String(repeating: "ü", count: 100_000))"])
        #expect(sink.bytes.count == 3001)
        for line in sink.bytes {
            #expect(line.last == 0x0a)
            #expect(line.dropLast().allSatisfy { $0 >= 0x20 && $0 != 0x7f })
            #expect(line.count < 3 * LineLogHandler.valueBytes)
            let text = String(decoding: line, as: UTF8.self)
            #expect(
                !text.unicodeScalars.dropLast().contains { (0x80..<0xa0).contains($0.value) || $0.value == 0x2028 || $0.value == 0x2029 }
            )
        }
    }

    @Test func timesAreRightAtTheirEdges() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"), (951_782_399_999, "2000-02-28T23:59:59.999Z"), (951_868_800_001, "2000-03-01T00:00:00.001Z"),
            (1_709_164_800_010, "2024-02-29T00:00:00.010Z"), (4_102_444_799_000, "2099-12-31T23:59:59.000Z"),
        ] {
            let sink = Sink()
            logger(sink, atMs: ms).info("m")
            #expect(sink.lines.first?.hasPrefix(text) == true, "\(sink.lines)")
        }
    }
}
