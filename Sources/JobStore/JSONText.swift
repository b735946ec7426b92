/// The little JSON this room writes and reads itself; what users send is parsed by a library at the door.
public enum JSONText {
    /// `text` as a JSON string, control characters escaped.
    public static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    /// The objects of a JSON array of flat objects that we wrote.
    static func objects(in json: String) -> [String] {
        var found: [String] = []
        var current = ""
        var isQuoted = false
        var isEscaped = false
        for scalar in json.unicodeScalars {
            if isQuoted {
                isQuoted = isEscaped || scalar != "\""
                isEscaped = !isEscaped && scalar == "\\"
            } else if scalar == "\"" {
                isQuoted = true
            } else if scalar == "{" {
                current = ""
            }
            current.unicodeScalars.append(scalar)
            if !isQuoted, scalar == "}" { found.append(current) }
        }
        return found
    }

    /// The whole number value of `name` in a flat JSON object that we wrote.
    static func integer(_ name: String, in json: String) -> Int? {
        guard let start = json.range(of: "\"\(name)\":")?.upperBound else { return nil }
        return Int(json[start...].prefix { $0.isNumber || $0 == "-" })
    }

    /// The text of a member of a JSON object, at its top level; nil when it has none of this name. The object is one that was
    /// validated before: what is malformed gives nil or a piece of it, never more than was there.
    static func member(_ name: String, of json: String) -> String? {
        let wanted = Array("\"\(name)\"".utf8)
        return Array(json.utf8).withUnsafeBufferPointer { bytes in
            var (depth, start, isName) = (0, 0, true)
            var key: Range<Int>?
            var index = 0
            while index < bytes.count {
                switch bytes[index] {
                case UInt8(ascii: "\""):
                    let opening = index
                    index = endOfString(bytes, from: opening)
                    if depth == 1, isName { key = opening..<min(index + 1, bytes.count) }
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: ":") where depth == 1 && isName:
                    isName = false
                    start = index + 1
                case UInt8(ascii: ",") where depth == 1, UInt8(ascii: "}") where depth == 1:
                    if !isName, let key, bytes[key].elementsEqual(wanted) { return String(decoding: bytes[start..<index], as: UTF8.self) }
                    isName = true
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                default: break
                }
                index += 1
            }
            return nil
        }
    }

    /// Index of the quotation mark that ends the string which begins at `start`, or the end.
    private static func endOfString(_ bytes: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        var index = start + 1
        while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
            index += bytes[index] == UInt8(ascii: "\\") ? 2 : 1
        }
        return min(index, bytes.count)
    }

    /// The string value of `name` in a flat JSON object that one of our scripts wrote, unescaped.
    static func string(_ name: String, in json: String) -> String? {
        guard let start = json.range(of: "\"\(name)\":\"")?.upperBound else { return nil }
        var out = ""
        var scalars = json[start...].unicodeScalars.makeIterator()
        while let scalar = scalars.next() {
            if scalar == "\"" { return out }
            guard scalar == "\\" else {
                out.unicodeScalars.append(scalar)
                continue
            }
            guard let escaped = scalars.next() else { return nil }
            switch escaped {
            case "n": out += "\n"
            case "r": out += "\r"
            case "t": out += "\t"
            case "b": out += "\u{8}"
            case "f": out += "\u{c}"
            case "u":
                var value: UInt32 = 0
                for _ in 0..<4 {
                    guard let digit = scalars.next().flatMap({ Character($0).hexDigitValue }) else { return nil }
                    value = value << 4 | UInt32(digit)
                }
                if let unicode = Unicode.Scalar(value) { out.unicodeScalars.append(unicode) }
            default: out.unicodeScalars.append(escaped)
            }
        }
        return nil
    }
}

extension String {
    /// First place of `needle`, by characters' bytes (the standard library has no substring search without Foundation).
    fileprivate func range(of needle: String) -> Range<String.Index>? {
        let haystack = utf8
        let pattern = Array(needle.utf8)
        var index = haystack.startIndex
        while index != haystack.endIndex {
            if haystack[index...].starts(with: pattern) {
                return index..<haystack.index(index, offsetBy: pattern.count)
            }
            haystack.formIndex(after: &index)
        }
        return nil
    }
}

extension CancelRequest {
    /// Reads `{"by":…,"reason":…,"at":…}` as `cancel.lua` writes it.
    init?(json: String) {
        guard let by = JSONText.string("by", in: json) else { return nil }
        self.init(by: by, reason: JSONText.string("reason", in: json))
    }
}

extension JobError {
    /// `{"code","message","recoverable"}`, the message cut to `StoreLimits.textBytes`.
    var json: String {
        var text = message
        while text.utf8.count > StoreLimits.textBytes { text.removeLast() }
        return "{\"code\":\(JSONText.quoted(code)),\"message\":\(JSONText.quoted(text)),\"recoverable\":\(isRecoverable)}"
    }
}
