import FoundationEssentials

/// JSON that passes through unchanged: checked, but kept as the text its author wrote.
enum JSONText {
    /// Any JSON value, decoded only to see that it is one.
    private struct Anything: Decodable {
        init(from decoder: any Decoder) throws {
            if let object = try? decoder.container(keyedBy: AnyKey.self) {
                for key in object.allKeys { _ = try object.decode(Anything.self, forKey: key) }
                return
            }
            if var list = try? decoder.unkeyedContainer() {
                while !list.isAtEnd { _ = try list.decode(Anything.self) }
                return
            }
            let value = try decoder.singleValueContainer()
            if value.decodeNil() { return }
            if (try? value.decode(Bool.self)) != nil || (try? value.decode(Double.self)) != nil { return }
            _ = try value.decode(String.self)
        }
    }

    private struct AnyKey: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init?(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    private struct Object: Decodable {
        let keys: Set<String>
        init(from decoder: any Decoder) throws {
            let object = try decoder.container(keyedBy: AnyKey.self)
            for key in object.allKeys { _ = try object.decode(Anything.self, forKey: key) }
            keys = Set(object.allKeys.map(\.stringValue))
        }
    }

    /// The keys of a JSON object, or nil when `text` is none.
    static func keys(ofObject text: String) -> Set<String>? {
        (try? JSONDecoder().decode(Object.self, from: Data(text.utf8)))?.keys
    }

    /// A JSON string with its quotes.
    static func quoted(_ text: String) -> String {
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

    /// `object` with one more field in front; `object` must be one (see `keys(ofObject:)`) without that key.
    static func adding(_ key: String, json value: String, toObject object: String, isEmpty: Bool) -> String {
        guard let brace = object.firstIndex(of: "{") else { return object }
        return "{\(quoted(key)):\(value)\(isEmpty ? "" : ",")" + object[object.index(after: brace)...]
    }
}
