/// Reads an expression into its tree.
struct PatternParser {
    private let scalars: [Unicode.Scalar]
    private var position = 0
    private var depth = 0
    private var ignoresCase = false
    private(set) var groups: [String] = []

    init(_ text: String) {
        scalars = Array(text.unicodeScalars)
    }

    mutating func parse() throws(LinePatternError) -> PatternTree {
        if starts(with: "(?i)") {
            ignoresCase = true
            position += 4
        }
        let tree = try alternatives()
        guard position == scalars.count else { throw problem(.unexpectedCharacter, "there is no group to close") }
        return tree
    }

    private var next: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard next == scalar else { return false }
        position += 1
        return true
    }

    private func starts(with text: String) -> Bool { scalars[position...].starts(with: text.unicodeScalars) }

    private func problem(_ code: LinePatternError.Code, _ message: String) -> LinePatternError {
        LinePatternError(code, at: position + 1, message)
    }

    // MARK: Structure

    private mutating func alternatives() throws(LinePatternError) -> PatternTree {
        var list = [try sequence()]
        while take("|") { list.append(try sequence()) }
        return list.count == 1 ? list[0] : .either(list)
    }

    private mutating func sequence() throws(LinePatternError) -> PatternTree {
        var list: [PatternTree] = []
        while let scalar = next, scalar != "|", scalar != ")" { list.append(try quantified()) }
        return list.isEmpty ? .empty : list.count == 1 ? list[0] : .sequence(list)
    }

    private mutating func quantified() throws(LinePatternError) -> PatternTree {
        let start = position
        let inner = try atom()
        let (least, most): (Int, Int?)
        if take("*") {
            (least, most) = (0, nil)
        } else if take("+") {
            (least, most) = (1, nil)
        } else if take("?") {
            (least, most) = (0, 1)
        } else if next == "{" {
            (least, most) = try bounds()
        } else {
            return inner
        }
        if case .condition = inner {
            throw LinePatternError(.badQuantifier, at: start + 1, "a place between characters cannot be repeated")
        }
        let isLazy = take("?")
        if let next, "*+?{".unicodeScalars.contains(next) {
            throw problem(.badQuantifier, "a quantifier follows a quantifier; write a literal \(next) as \\\(next)")
        }
        return .repeated(inner, atLeast: least, atMost: most, isLazy: isLazy)
    }

    /// `{3}`, `{3,}`, `{3,5}`.
    private mutating func bounds() throws(LinePatternError) -> (Int, Int?) {
        let start = position
        position += 1
        guard let least = number() else { throw problem(.badQuantifier, "a number is needed here; write a literal { as \\{") }
        var most: Int? = least
        if take(",") { most = number() }
        guard take("}") else { throw problem(.badQuantifier, "} is needed here") }
        guard most.map({ $0 >= least && $0 <= ProgressLimits.patternRepeats }) ?? (least <= ProgressLimits.patternRepeats) else {
            throw LinePatternError(
                .badQuantifier,
                at: start + 1,
                "bounds must be 0…\(ProgressLimits.patternRepeats), the first at most the second"
            )
        }
        return (least, most)
    }

    private mutating func number() -> Int? {
        var value: Int?
        while let scalar = next, ("0"..."9").contains(scalar) {
            value = min((value ?? 0) * 10 + Int(scalar.value - 0x30), 1_000_000)
            position += 1
        }
        return value
    }

    private mutating func atom() throws(LinePatternError) -> PatternTree {
        guard let scalar = next else { throw problem(.unexpectedEnd, "the expression ends too early") }
        switch scalar {
        case "(": return try group()
        case "[": return .one(folded(try bracket()))
        case "*", "+", "?": throw problem(.badQuantifier, "there is nothing to repeat; write a literal \(scalar) as \\\(scalar)")
        case "{": throw problem(.badQuantifier, "there is nothing to repeat; write a literal { as \\{")
        case "\\": return try escape()
        default:
            position += 1
            switch scalar {
            case ".": return .one(.any)
            case "^": return .condition(.start)
            case "$": return .condition(.end)
            default: return .one(folded(ScalarSet([scalar.value...scalar.value])))
            }
        }
    }

    private func folded(_ set: ScalarSet) -> ScalarSet { ignoresCase ? set.ignoringCase : set }

    private mutating func group() throws(LinePatternError) -> PatternTree {
        let start = position
        position += 1
        depth += 1
        defer { depth -= 1 }
        guard depth <= ProgressLimits.patternDepth else {
            throw LinePatternError(.tooDeep, at: start + 1, "groups are nested more than \(ProgressLimits.patternDepth) deep")
        }
        var number: Int?
        if take("?") {
            if take("<") {
                number = try groupName()
            } else if !take(":") {
                throw problem(.unsupported, "only (?:…) and (?<name>…) are understood, and (?i) at the very beginning")
            }
        }
        let inner = try alternatives()
        guard take(")") else { throw LinePatternError(.unexpectedEnd, at: start + 1, "the group is not closed; write a literal ( as \\(") }
        return number.map { .capture($0, inner) } ?? inner
    }

    private mutating func groupName() throws(LinePatternError) -> Int {
        let start = position
        if next == "=" || next == "!" { throw problem(.unsupported, "look-behind is not understood") }
        var name = ""
        while let scalar = next, scalar != ">" {
            guard ScalarSet.word.contains(scalar.value), name.utf8.count < ProgressLimits.stageNameBytes else {
                throw problem(.badGroupName, "a group's name has letters, digits and _ only, and ends with >")
            }
            name.unicodeScalars.append(scalar)
            position += 1
        }
        guard take(">"), !name.isEmpty else { throw problem(.badGroupName, "a group needs a name in < and >") }
        guard !groups.contains(name) else { throw LinePatternError(.badGroupName, at: start + 1, "there are two groups '\(name)'") }
        groups.append(name)
        return groups.count - 1
    }

    // MARK: Characters

    private mutating func escape() throws(LinePatternError) -> PatternTree {
        if position + 1 < scalars.count {
            if scalars[position + 1] == "b" || scalars[position + 1] == "B" {
                let isBoundary = scalars[position + 1] == "b"
                position += 2
                return .condition(isBoundary ? .wordBoundary : .noWordBoundary)
            }
        }
        return .one(folded(try escapedSet()))
    }

    /// What stands for one character behind a backslash, inside of brackets and outside.
    private mutating func escapedSet() throws(LinePatternError) -> ScalarSet {
        position += 1
        guard let scalar = next else { throw problem(.unexpectedEnd, "a backslash ends the expression; write a literal one as \\\\") }
        let set: ScalarSet? =
            switch scalar {
            case "d": .digit
            case "D": ScalarSet.digit.inverted
            case "w": .word
            case "W": ScalarSet.word.inverted
            case "s": .space
            case "S": ScalarSet.space.inverted
            case "t": ScalarSet([9...9])
            default: nil
            }
        if let set {
            position += 1
            return set
        }
        guard !ScalarSet.word.contains(scalar.value), scalar.value > 0x20 else {
            throw problem(.unknownEscape, "\\\(scalar) is not understood")
        }
        position += 1
        return ScalarSet([scalar.value...scalar.value])
    }

    private mutating func bracket() throws(LinePatternError) -> ScalarSet {
        let start = position
        position += 1
        let isNegated = take("^")
        var ranges: [ClosedRange<UInt32>] = []
        var isFirst = true
        while let scalar = next, scalar != "]" || isFirst {
            isFirst = false
            let place = position
            let lower = try member()
            if next == "-", position + 1 < scalars.count, scalars[position + 1] != "]" {
                position += 1
                let upper = try member()
                guard let from = lower.only, let to = upper.only, from <= to else {
                    throw LinePatternError(.badRange, at: place + 1, "a range needs two characters in order; write a literal - last")
                }
                ranges.append(from...to)
            } else {
                ranges += lower.members
            }
        }
        guard take("]") else { throw LinePatternError(.unexpectedEnd, at: start + 1, "the class is not closed; write a literal [ as \\[") }
        // Case is folded before the set is turned around.
        let set = folded(ScalarSet(ranges))
        return isNegated ? set.inverted : set
    }

    private mutating func member() throws(LinePatternError) -> ScalarSet {
        guard let scalar = next else { throw problem(.unexpectedEnd, "the class is not closed") }
        if scalar == "\\" { return try escapedSet() }
        position += 1
        return ScalarSet([scalar.value...scalar.value])
    }
}
