import FoundationEssentials
import JobStore

/// JSON that passes through unchanged: checked, but kept as the text its author wrote.
enum RawJSON {
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

    /// `object` with one more field in front; `object` must be one (see `keys(ofObject:)`) without that key.
    static func adding(_ key: String, json value: String, toObject object: String, isEmpty: Bool) -> String {
        guard let brace = object.firstIndex(of: "{") else { return object }
        return "{\(JSONText.quoted(key)):\(value)\(isEmpty ? "" : ",")" + object[object.index(after: brace)...]
    }
}
