import TestSupport
import Testing

@testable import WorkerRuntime

@Suite(.timeLimit(.minutes(5))) struct LineSplitterTests {
    /// What the splitter should give, worked out on the whole text at once.
    private static func expected(_ bytes: [UInt8], limit: Int, overlong: LineSplitter.Overlong, hasCarriageReturn: Bool) -> [[UInt8]] {
        bytes.split(omittingEmptySubsequences: true) { $0 == 0x0a || (hasCarriageReturn && $0 == 0x0d) }.compactMap { line in
            if line.count <= limit { return Array(line) }
            return overlong == .cut ? Array(line.prefix(limit)) : nil
        }
    }

    @Test func linesAreTheSameHoweverTheBytesArrive() {
        for seed in 0..<4000 {
            var random = SeededGenerator(seed)
            let limit = random.pick([1, 3, 8, 40])
            let overlong = random.pick([LineSplitter.Overlong.cut, .skip])
            let hasCarriageReturn = random.chance(50)
            let bytes = (0..<Int.random(in: 0...300, using: &random)).map { _ in
                random.pick([UInt8(0x0a), 0x0d, 0x61, 0x62, 0x63, 0x64, 0xc3, 0xa4, 0x00, 0xff])
            }
            var splitter = LineSplitter(limit: limit, overlong: overlong, endsAtCarriageReturn: hasCarriageReturn)
            var lines: [[UInt8]] = []
            var rest = bytes[...]
            while !rest.isEmpty {
                let piece = rest.prefix(Int.random(in: 1...50, using: &random))
                rest = rest.dropFirst(piece.count)
                Array(piece).withUnsafeBytes { chunk in splitter.feed(chunk) { lines.append(Array($0)) } }
            }
            splitter.finish { lines.append(Array($0)) }
            let wanted = Self.expected(bytes, limit: limit, overlong: overlong, hasCarriageReturn: hasCarriageReturn)
            #expect(lines == wanted, "seed \(seed)")
        }
    }

    @Test func aLineWithoutEndHoldsNoMoreThanTheLimit() {
        var splitter = LineSplitter(limit: 100, overlong: .cut, endsAtCarriageReturn: true)
        var lines: [Int] = []
        let chunk = [UInt8](repeating: 0x61, count: 65_536)
        for _ in 0..<100 { chunk.withUnsafeBytes { splitter.feed($0) { lines.append($0.count) } } }
        #expect(lines.isEmpty)
        splitter.finish { lines.append($0.count) }
        #expect(lines == [100])
        #expect(splitter.overlongLines == 1)
    }

    @Test func theBudgetRefillsWithTime() {
        var budget = LineBudget(perSecond: 10, burst: 20, atMs: 0)
        #expect((0..<50).count { _ in budget.take(atMs: 0) } == 20)
        #expect((0..<50).count { _ in budget.take(atMs: 500) } == 5)
        #expect((0..<50).count { _ in budget.take(atMs: 100_000) } == 20)
        #expect((0..<50).count { _ in budget.take(atMs: 90_000) } == 0)
    }
}
