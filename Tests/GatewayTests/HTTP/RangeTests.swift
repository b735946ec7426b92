import NIOCore
import TestSupport
import Testing

@testable import Gateway

@Suite(.timeLimit(.minutes(5))) struct RangeTests {
    @Test func readsOneRange() throws {
        let cases: [(String, Int, Range<Int>?)] = [
            ("bytes=0-0", 10, 0..<1), ("bytes=2-5", 10, 2..<6), ("bytes=5-", 10, 5..<10), ("bytes=-3", 10, 7..<10),
            ("bytes=-30", 10, 0..<10),
            ("bytes=0-99", 10, 0..<10), ("bytes=0-9223372036854775807", 10, 0..<10),
            // What we need not follow is answered with the whole file.
            ("bytes=0-1,3-4", 10, nil), ("items=0-1", 10, nil), ("bytes=", 10, nil), ("bytes=-", 10, nil), ("bytes=5-2", 10, nil),
            ("bytes=a-b", 10, nil), ("bytes=1-2-3", 10, nil), ("", 10, nil), ("bytes=99999999999999999999-", 10, nil),
        ]
        for (text, count, expected) in cases { #expect(try BlobRoutes.range(text, of: count) == expected, "\(text)") }
    }

    @Test func refusesWhatLiesBehindTheEnd() {
        for (text, count) in [
            ("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=20-30", 10), ("bytes=11-", 10), ("bytes=-0", 10), ("bytes=0-", 0),
            ("bytes=-1", 0),
        ] {
            #expect(code { try BlobRoutes.range(text, of: count) } == .rangeNotSatisfiable, "\(text) of \(count)")
        }
    }

    @Test func anyTextGivesARangeWithinTheFile() {
        var generator = SeededGenerator(seed: 5)
        let alphabet = Array("0123456789-+, bytes=".utf8)
        for _ in 0..<20_000 {
            let tail = (0..<Int.random(in: 0...22, using: &generator)).map { _ in alphabet.randomElement(using: &generator) ?? 0x30 }
            let count = Int.random(in: 0...100, using: &generator)
            guard let range = try? BlobRoutes.range("bytes=" + String(decoding: tail, as: UTF8.self), of: count) else { continue }
            #expect(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= count)
        }
    }
}
