/// A regular expression over one line of text whose matching takes time linear in the line, whatever the expression and the line.
///
/// Expressions come from a file, lines from foreign programs, and the two meet on the thread that has to keep a program's pipes
/// empty. An engine that backtracks, as Swift's `Regex` does, can be made to run for hours by a line of thirty letters; this one
/// follows all alternatives at once (Thompson 1968; with captures: Pike's method, as in RE2). What can only be had by
/// backtracking, look-around and back-references, is therefore not part of it.
///
/// Understood are literals, `.`, classes `[a-z\d]` and `[^…]`, `\d \w \s` and their opposites, `\b \B ^ $`, groups `(…)`,
/// `(?:…)` and `(?<name>…)`, `|`, the quantifiers `* + ? {n} {n,} {n,m}`, each also lazy with `?`, and `(?i)` at the beginning.
/// `\d \w \s` and the case of letters mean ASCII. Of several matches the leftmost counts, and of those the one that a backtracking
/// engine would find first.
public struct LinePattern: Sendable, Hashable {
    public let text: String
    /// Names of groups, in order.
    public let groups: [String]
    private let program: PatternProgram

    /// - Throws: `LinePatternError` that says what is wrong, and where.
    public init(_ text: String) throws(LinePatternError) {
        guard text.utf8.count <= ProgressLimits.patternBytes else {
            throw LinePatternError(.tooLong, at: nil, "is longer than \(ProgressLimits.patternBytes) bytes")
        }
        var parser = PatternParser(text)
        let tree = try parser.parse()
        program = try PatternProgram(tree, groups: parser.groups.count)
        groups = parser.groups
        self.text = text
    }

    /// What the named groups hold in the first match, nil for one that took no part in it; nil when there is no match.
    public func firstMatch(in line: PatternLine) -> [String?]? {
        program.firstMatch(in: line)?.map { range in range.map(line.text) }
    }

    public static func == (a: LinePattern, b: LinePattern) -> Bool { a.text == b.text }
    public func hash(into hasher: inout Hasher) { hasher.combine(text) }
}

/// Why an expression was refused.
public struct LinePatternError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case tooLong, unexpectedEnd, unexpectedCharacter, unknownEscape, unsupported, badRange, badQuantifier, badGroupName, tooDeep,
            tooLarge
    }
    public let code: Code
    /// Where, counted in characters from 1; nil when it is about the whole.
    public let position: Int?
    public let message: String

    init(_ code: Code, at position: Int?, _ message: String) {
        self.code = code
        self.position = position
        self.message = message
    }

    public var description: String { position.map { "at character \($0): \(message)" } ?? message }
}

/// A line to be searched, cut to the length that patterns look at.
public struct PatternLine: Sendable {
    let scalars: [UInt32]
    let bytes: [UInt8]

    /// Bytes that are not UTF-8 count as U+FFFD.
    public init(_ bytes: some Collection<UInt8>) {
        self.bytes = Array(bytes.prefix(ProgressLimits.patternLineBytes))
        scalars =
            self.bytes.allSatisfy { $0 < 0x80 }
            ? self.bytes.map(UInt32.init) : String(decoding: self.bytes, as: UTF8.self).unicodeScalars.map(\.value)
    }

    func text(_ range: Range<Int>) -> String {
        var text = String.UnicodeScalarView()
        for value in scalars[range] { if let scalar = Unicode.Scalar(value) { text.append(scalar) } }
        return String(text)
    }

    /// Whether `part` is in the line, byte by byte.
    func contains(_ part: [UInt8]) -> Bool {
        guard let first = part.first else { return true }
        guard part.count <= bytes.count else { return false }
        for start in 0...(bytes.count - part.count) where bytes[start] == first {
            var length = 1
            while length < part.count, bytes[start + length] == part[length] { length += 1 }
            if length == part.count { return true }
        }
        return false
    }
}
