/// As much of Lua's grammar as ``ScriptLinker`` needs: words and calls.
enum LuaText {
    /// The text with other words in it; what is within quotes or a comment stays.
    ///
    /// - Parameter replacement: of a word, given what follows it: its text, and how many bytes after the word go with it.
    static func replacingWords(
        in text: Substring,
        _ replacement: (_ word: Substring, _ rest: Substring) -> (text: String, dropped: Int)?
    ) -> String {
        let bytes = text.utf8
        var out = ""
        var (copied, index) = (text.startIndex, text.startIndex)
        while index < text.endIndex {
            let start = index
            switch bytes[index] {
            case UInt8(ascii: "'"), UInt8(ascii: "\""):
                index = endOfString(text, from: index)
                if index < text.endIndex { index = bytes.index(after: index) }
            case UInt8(ascii: "-") where text[index...].hasPrefix("--"):
                index = bytes[index...].firstIndex(of: UInt8(ascii: "\n")) ?? text.endIndex
            case let byte where isWord(byte):
                index = bytes[index...].firstIndex { !isWord($0) } ?? text.endIndex
                // A field of a table is none of ours; what follows `..` is.
                let before = text[..<start]
                guard !before.hasSuffix(".") || before.hasSuffix(".."),
                    let (value, dropped) = replacement(text[start..<index], text[index...])
                else { continue }
                out += text[copied..<start]
                out += value
                index = bytes.index(index, offsetBy: dropped)
                copied = index
            default: index = bytes.index(after: index)
            }
        }
        return out + text[copied...]
    }

    /// Every word that may be a name.
    static func names(in text: Substring) -> Set<Substring> {
        var names: Set<Substring> = []
        _ = replacingWords(in: text) { word, _ in
            names.insert(word)
            return nil
        }
        return names
    }

    /// The arguments of a call, and its length in bytes.
    /// - Parameter text: begins with the opening parenthesis of the call; else there are none.
    static func arguments(at text: Substring) -> (arguments: [Substring], length: Int)? {
        guard text.utf8.first == UInt8(ascii: "(") else { return nil }
        var found: [Substring] = []
        let bytes = text.utf8
        var (depth, start, index) = (0, bytes.index(after: text.startIndex), text.startIndex)
        while index < text.endIndex {
            switch bytes[index] {
            case UInt8(ascii: "("), UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: ")"), UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: "'"), UInt8(ascii: "\""): index = endOfString(text, from: index)
            case UInt8(ascii: "-") where text[index...].hasPrefix("--"):
                // What is said beside an argument stays behind a call, which then cannot be written out.
                return nil
            default: break
            }
            guard index < text.endIndex else { return nil }
            if depth == 0 || depth == 1 && bytes[index] == UInt8(ascii: ",") {
                let argument = trimmed(text[start..<index])
                if depth == 1 || !argument.isEmpty { found.append(argument) }
                if depth == 0 { return (found, bytes.distance(from: text.startIndex, to: index) + 1) }
                start = bytes.index(after: index)
            }
            index = bytes.index(after: index)
        }
        return nil
    }

    /// The index of the quote that ends the string which begins at `start`.
    private static func endOfString(_ text: Substring, from start: Substring.Index) -> Substring.Index {
        let bytes = text.utf8
        var index = bytes.index(after: start)
        while index < text.endIndex, bytes[index] != bytes[start] {
            if bytes[index] == UInt8(ascii: "\\") { index = bytes.index(after: index) }
            if index < text.endIndex { index = bytes.index(after: index) }
        }
        return index
    }

    static func trimmed(_ text: Substring) -> Substring {
        let text = text.drop(while: \.isWhitespace)
        guard let last = text.lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return text[...last]
    }

    static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"):
            true
        default: false
        }
    }
}
