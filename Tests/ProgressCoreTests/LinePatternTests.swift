import TestSupport
import Testing

@testable import ProgressCore

struct LinePatternTests {
    private func match(_ pattern: String, _ line: String) throws -> [String?]? {
        try LinePattern(pattern).firstMatch(in: PatternLine(line.utf8))
    }

    @Test(
        arguments: [
            ("Epoch (?<step>\\d+)/(?<steps>\\d+)", "12:00 Epoch 3/10 loss=0.1", ["3", "10"]),
            ("^frame=\\s*(?<a>\\d+)", "frame=   42 fps", ["42"]), ("^frame", " frame", nil), ("(?<a>\\d+)$", "a 1 b 22", ["22"]),
            ("(?<a>a|ab)(?<b>c|bcd)(?<c>d*)", "abcd", ["a", "bcd", ""]), ("(?<a>a+?)(?<b>a*)", "aaaa", ["a", "aaa"]),
            ("(?<a>x)|(?<b>y)", "y", [nil, "y"]), ("(?i)EPOCH (?<a>[a-f]+)", "epoch BEEF", ["BEEF"]), ("(?<a>.)é", "aéb", ["a"]),
            ("(?<a>[^\\s:]+):", "12:00 loss: 3", ["12"]), ("\\b(?<a>\\d{2,3})\\b", "1 12345 123", ["123"]),
            ("(?<a>\\d{3})", "12 345", ["345"]),
            ("(?:ab){2}(?<a>.*)", "abababx", ["abx"]), ("a\\.b(?<a>\\W)", "a.b-", ["-"]), ("(?<a>[]a-]+)", "x]-a", ["]-a"]),
            ("(?<a>[\\d.]+)%", "at 45.5% now", ["45.5"]), ("", "x", []), ("(?<a>)", "x", [""]), ("日(?<a>.)語", "日本語", ["本"]),
            ("(?<a>\\S+) it/s", "1.8 it/s", ["1.8"]), ("(?<a>[^a])", "aab", ["b"]), ("(?i)(?<a>[^a]+)", "aAbB", ["bB"]),
            ("(?<a>\\d+(?:\\.\\d+)?)", "v1.25.3", ["1.25"]), ("x{0}y(?<a>z?)", "y", [""]), ("(?<a>[^\\D]+)", "ab12", ["12"]),
        ] as [(String, String, [String?]?)]
    )
    func whatIsMeantIsFound(_ pattern: String, _ line: String, _ groups: [String?]?) throws {
        #expect(try match(pattern, line) == groups)
    }

    @Test(
        arguments: [
            ("(", .unexpectedEnd), (")", .unexpectedCharacter), ("a)", .unexpectedCharacter), ("[a", .unexpectedEnd), ("[", .unexpectedEnd),
            ("*", .badQuantifier), ("a**", .badQuantifier), ("a{", .badQuantifier), ("a{2,1}", .badQuantifier), ("a{101}", .badQuantifier),
            ("a{,3}", .badQuantifier), ("^*", .badQuantifier), ("{2}", .badQuantifier), ("\\", .unexpectedEnd), ("\\q", .unknownEscape),
            ("\\1", .unknownEscape), ("(?=a)", .unsupported), ("(?!a)", .unsupported), ("(?<=a)", .unsupported), ("a(?i)", .unsupported),
            ("(?P<a>b)", .unsupported), ("(?<>b)", .badGroupName), ("(?<a b>c)", .badGroupName), ("(?<a>b)(?<a>c)", .badGroupName),
            ("[b-a]", .badRange), ("[\\d-z]", .badRange), ("((a{90}){90}){90}", .tooLarge), (String(repeating: "a", count: 501), .tooLong),
            (String(repeating: "(", count: 30), .tooDeep), ("a++", .badQuantifier), ("(?<a", .badGroupName), ("a{1", .badQuantifier),
        ] as [(String, LinePatternError.Code)]
    )
    func badExpressionsAreRefused(_ pattern: String, _ code: LinePatternError.Code) {
        do {
            _ = try LinePattern(pattern)
            Issue.record("accepted: \(pattern)")
        } catch {
            #expect(error.code == code, "\(error)")
        }
    }

    @Test func anErrorNamesThePlace() {
        #expect(throws: LinePatternError(.unknownEscape, at: 5, "\\q is not understood")) { try LinePattern("abc\\q") }
    }

    /// Swift's own engine is the judge: the same match and the same groups, for thousands of random expressions and lines.
    @Test(arguments: 0..<20) func theFirstMatchIsThatOfABacktrackingEngine(_ seed: Int) throws {
        var random = SeededGenerator(seed)
        var matches = 0
        for _ in 0..<60 {
            var names = 0
            let text = Self.expression(depth: 3, names: &names, &random)
            let ours = try LinePattern(text)
            let theirs = try Regex(text)
            for _ in 0..<12 {
                let line = String((0..<Int.random(in: 0...9, using: &random)).map { _ in random.pick(Array("aabbc1 -")) })
                let found = ours.firstMatch(in: PatternLine(line.utf8))
                let expected = try theirs.firstMatch(in: line)
                #expect((found == nil) == (expected == nil), "\(text) in '\(line)'")
                guard let found, let expected else { continue }
                matches += 1
                let groups: [String?] = (1..<max(1, expected.output.count)).map { expected.output[$0].substring.map(String.init) }
                #expect(found == groups, "\(text) in '\(line)'")
            }
        }
        #expect(matches > 50)
    }

    /// No `\b`, which means another kind of word there, and no repetition of what may be empty: there engines differ in what the last empty round leaves in a group.
    private static func expression(depth: Int, names: inout Int, _ random: inout SeededGenerator) -> String {
        func atom(_ names: inout Int, _ random: inout SeededGenerator) -> String {
            switch Int.random(in: 0..<(depth > 0 ? 10 : 6), using: &random) {
            case 0..<4: return random.pick(["a", "b", "c", "1", " ", "\\-"])
            case 4: return random.pick(["[ab]", "[^a]", "\\d", "\\w", ".", "[a-c1]", "\\S"])
            case 5: return random.pick(["a", "b"])
            case 6, 7:
                names += 1
                let name = "g\(names)"
                return "(?<\(name)>" + expression(depth: depth - 1, names: &names, &random) + ")"
            default: return "(?:" + expression(depth: depth - 1, names: &names, &random) + ")"
            }
        }
        var text = ""
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            let before = names
            let part = atom(&names, &random)
            let isRepeatable = part.count <= 6 && before == names && !part.hasPrefix("(")
            let quantifiers = ["*", "+", "?", "{1,2}", "*?", "+?", "??", "{2}"]
            text += isRepeatable && Bool.random(using: &random) ? part + random.pick(quantifiers) : part
        }
        if Int.random(in: 0..<4, using: &random) == 0 { text += "|" + atom(&names, &random) }
        if depth == 3, Int.random(in: 0..<6, using: &random) == 0 { text = random.pick(["^(?:\(text))", "(?:\(text))$"]) }
        return text
    }

    /// Twenty letters keep Swift's `Regex` busy for a minute with the first of these.
    @Test(arguments: ["(a+)+b", "(a|a)*b", "(a|aa)+c", "(.*)*x", ".*.*.*.*.*.*=.*", "(?:a?){50}a{50}b", "(\\w+\\s?)+$!"])
    func noExpressionTakesLong(_ pattern: String) throws {
        let pattern = try LinePattern(pattern)
        let line = PatternLine(repeatElement(UInt8(ascii: "a"), count: 100_000))
        let start = ContinuousClock.now
        for _ in 0..<3 { #expect(pattern.firstMatch(in: line) == nil) }
        #expect(ContinuousClock.now - start < .seconds(30))
    }

    @Test func anythingIsReadOrRefused() {
        for seed in 0..<3000 {
            var random = SeededGenerator(seed)
            let text = String((0..<Int.random(in: 0...14, using: &random)).map { _ in random.pick(Array("ab1(){}[]<>?*+|^$\\.-,:dwi")) })
            guard let pattern = try? LinePattern(text) else { continue }
            let line = (0..<20).map { _ in UInt8.random(in: 0...255, using: &random) }
            _ = pattern.firstMatch(in: PatternLine(line))
        }
    }

    @Test func aPatternBecomesAnUpdate() throws {
        let pattern = ProgressPattern(
            match: try LinePattern(
                "(?<stage>\\w+) (?<step>\\S+)/(?<steps>\\d+)(?: (?<percent>\\S+)%)?(?: image (?<item>\\d+) of (?<items>\\d+))?(?<message>.*)"
            )
        )
        #expect(
            pattern.update(for: PatternLine("bake 3.0/10 45.5% image 1 of 2 hello".utf8))
                == ProgressUpdate(stage: "bake", step: 3, steps: 10, percent: 45.5, item: 1, items: 2, message: " hello")
        )
        #expect(pattern.update(for: PatternLine("bake x/10".utf8)) == ProgressUpdate(stage: "bake", steps: 10))
        #expect(pattern.update(for: PatternLine("nothing".utf8)) == nil)
        let fixed = ProgressPattern(match: try LinePattern("got prompt"), stage: "queued")
        #expect(fixed.update(for: PatternLine("got prompt".utf8)) == ProgressUpdate(stage: "queued"))
    }
}
