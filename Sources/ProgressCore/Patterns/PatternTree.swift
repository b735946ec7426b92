/// An expression as it was written.
indirect enum PatternTree: Hashable {
    case empty
    case one(ScalarSet)
    case sequence([PatternTree])
    /// The earlier one is preferred.
    case either([PatternTree])
    case repeated(PatternTree, atLeast: Int, atMost: Int?, isLazy: Bool)
    /// A group with the number of its name.
    case capture(Int, PatternTree)
    case condition(PatternCondition)

    /// The longest text that every match holds, for a quick look before the search; empty when there is none.
    var requiredText: [UInt8] {
        var longest: [UInt8] = []
        var run: [UInt8] = []
        collect(&run, &longest)
        return longest.count >= run.count ? longest : run
    }

    private func collect(_ run: inout [UInt8], _ longest: inout [UInt8]) {
        func cut() {
            if run.count > longest.count { longest = run }
            run = []
        }
        switch self {
        case .empty, .condition: break
        case .one(let set):
            if let scalar = set.only, let scalar = Unicode.Scalar(scalar) {
                run += Array(String(scalar).utf8)
            } else {
                cut()
            }
        case .sequence(let parts): for part in parts { part.collect(&run, &longest) }
        case .capture(_, let inner): inner.collect(&run, &longest)
        case .repeated(let inner, let least, _, _):
            cut()
            if least > 0 {
                inner.collect(&run, &longest)
                cut()
            }
        case .either: cut()
        }
    }
}

/// What holds at a place between two characters.
enum PatternCondition: Hashable {
    case start
    case end
    case wordBoundary
    case noWordBoundary

    func holds(at index: Int, in line: [UInt32]) -> Bool {
        switch self {
        case .start: return index == 0
        case .end: return index == line.count
        case .wordBoundary, .noWordBoundary:
            let before = index > 0 && ScalarSet.word.contains(line[index - 1])
            let after = index < line.count && ScalarSet.word.contains(line[index])
            return (before != after) == (self == .wordBoundary)
        }
    }
}

/// A set of characters.
struct ScalarSet: Hashable {
    /// Disjoint or not, in any order.
    private var ranges: [ClosedRange<UInt32>] = []
    private var isNegated = false
    /// The answer for ASCII.
    private var low: (UInt64, UInt64) = (0, 0)

    init(_ ranges: [ClosedRange<UInt32>], isNegated: Bool = false) {
        self.ranges = ranges
        self.isNegated = isNegated
        for value in UInt32(0)..<128 where ranges.contains(where: { $0.contains(value) }) != isNegated {
            if value < 64 { low.0 |= 1 << UInt64(value) } else { low.1 |= 1 << UInt64(value - 64) }
        }
    }

    static let digit = ScalarSet([0x30...0x39])
    static let word = ScalarSet([0x30...0x39, 0x41...0x5a, 0x5f...0x5f, 0x61...0x7a])
    static let space = ScalarSet([0x09...0x0d, 0x20...0x20])
    static let any = ScalarSet([], isNegated: true)

    var inverted: ScalarSet { ScalarSet(ranges, isNegated: !isNegated) }
    /// The ranges of a set that is not negated, to be put into another one.
    var members: [ClosedRange<UInt32>] {
        if !isNegated { return ranges }
        // The gaps between the ranges.
        var gaps: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if range.lowerBound > next { gaps.append(next...(range.lowerBound - 1)) }
            next = max(next, range.upperBound + 1)
        }
        if next <= 0x10ffff { gaps.append(next...0x10ffff) }
        return gaps
    }

    /// The one character in it, when it is one.
    var only: UInt32? {
        guard !isNegated, ranges.count == 1, ranges[0].count == 1 else { return nil }
        return ranges[0].lowerBound
    }

    /// With both cases of every ASCII letter in it.
    var ignoringCase: ScalarSet {
        var all = ranges
        for letter in UInt32(0x61)...0x7a {
            if ranges.contains(where: { $0.contains(letter) || $0.contains(letter - 32) }) {
                all += [letter...letter, letter - 32...letter - 32]
            }
        }
        return ScalarSet(all.count == ranges.count ? ranges : all, isNegated: isNegated)
    }

    func contains(_ value: UInt32) -> Bool {
        if value < 64 { return low.0 >> UInt64(value) & 1 == 1 }
        if value < 128 { return low.1 >> UInt64(value - 64) & 1 == 1 }
        return ranges.contains { $0.contains(value) } != isNegated
    }

    static func == (a: ScalarSet, b: ScalarSet) -> Bool { a.ranges == b.ranges && a.isNegated == b.isNegated }
    func hash(into hasher: inout Hasher) {
        hasher.combine(ranges)
        hasher.combine(isNegated)
    }
}
