/// The two parts of a long poll's answer as the JSON text they were sent as: `{"state":{…},"events":[{…},…]}`.
struct PollAnswer: Sendable, Equatable {
    var state: String?
    var events: [String] = []

    /// Nil when `json` is no object with balanced brackets. The parts are not judged here.
    init?(_ json: String) {
        var scanner = JSONScanner(json)
        guard let members = scanner.object() else { return nil }
        state = members["state"].map { String(decoding: $0, as: UTF8.self) }
        if let list = members["events"] {
            var inner = JSONScanner(list)
            guard let items = inner.array() else { return nil }
            events = items.map { String(decoding: $0, as: UTF8.self) }
        }
    }
}

/// Finds where JSON values begin and end without decoding them.
private struct JSONScanner {
    private let bytes: [UInt8]
    private var index = 0

    init(_ text: String) { bytes = Array(text.utf8) }
    init(_ slice: ArraySlice<UInt8>) { bytes = Array(slice) }

    mutating func object() -> [String: ArraySlice<UInt8>]? {
        guard take("{") else { return nil }
        var members: [String: ArraySlice<UInt8>] = [:]
        if take("}") { return members }
        while true {
            skipSpace()
            guard let key = string(), take(":"), let value = value() else { return nil }
            members[String(decoding: key.dropFirst().dropLast(), as: UTF8.self)] = value
            if take("}") { return members }
            guard take(",") else { return nil }
        }
    }

    mutating func array() -> [ArraySlice<UInt8>]? {
        guard take("[") else { return nil }
        var items: [ArraySlice<UInt8>] = []
        if take("]") { return items }
        while true {
            guard let value = value() else { return nil }
            items.append(value)
            if take("]") { return items }
            guard take(",") else { return nil }
        }
    }

    private mutating func value() -> ArraySlice<UInt8>? {
        skipSpace()
        let start = index
        var depth = 0
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                guard string() != nil else { return nil }
                if depth == 0 { return bytes[start..<index] }
                continue
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                if depth == 0 { return start == index ? nil : bytes[start..<index] }
                depth -= 1
                if depth == 0 {
                    index += 1
                    return bytes[start..<index]
                }
            case UInt8(ascii: ","): if depth == 0 { return start == index ? nil : bytes[start..<index] }
            default: break
            }
            index += 1
        }
        return nil
    }

    private mutating func string() -> ArraySlice<UInt8>? {
        guard index < bytes.count, bytes[index] == UInt8(ascii: "\"") else { return nil }
        let start = index
        index += 1
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\\"): index += 2
            case UInt8(ascii: "\""):
                index += 1
                return bytes[start..<index]
            default: index += 1
            }
        }
        return nil
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        guard index < bytes.count, bytes[index] == UInt8(ascii: character) else { return false }
        index += 1
        return true
    }

    private mutating func skipSpace() {
        while index < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[index]) { index += 1 }
    }
}
