import NIOCore

/// One event of an event stream, as the WHATWG HTML standard defines them (§9.2.6, "Interpreting an event stream").
struct ServerSentEvent: Sendable, Equatable {
    /// The last `id:` seen so far on the stream; what a reconnect sends as `Last-Event-ID`.
    var lastEventID: String
    /// `message` when the stream named none.
    var name: String
    var data: String
}

/// Cuts the bytes of an event stream into events, whatever pieces they arrive in. Bounded: an oversized line or event is an error.
struct EventStreamParser {
    enum Item: Sendable, Equatable {
        case event(ServerSentEvent)
        /// `retry:` in milliseconds.
        case retry(Int)
        /// A comment: nothing but a sign of life.
        case comment
    }

    /// A line or an event is larger than any gateway sends.
    struct Oversized: Error, Equatable {}

    private(set) var lastEventID = ""
    private var line: [UInt8] = []
    private var data: [UInt8] = []
    private var hasData = false
    private var name = ""
    private var lastByteWasCR = false
    private var isAtStart = true
    private let maximumLine: Int
    private let maximumEvent: Int

    init(lastEventID: String = "", maximumLine: Int = Limits.eventLineBytes, maximumEvent: Int = Limits.eventBytes) {
        self.lastEventID = lastEventID
        self.maximumLine = maximumLine
        self.maximumEvent = maximumEvent
    }

    /// Takes the next bytes of the stream and returns what they complete.
    mutating func feed(_ bytes: some Sequence<UInt8>) throws(Oversized) -> [Item] {
        var items: [Item] = []
        for byte in bytes {
            // CR, LF and CRLF each end a line; the LF of a CRLF may come with the next piece.
            let isSecondHalf = byte == 0x0A && lastByteWasCR
            lastByteWasCR = byte == 0x0D
            if isSecondHalf { continue }
            guard byte == 0x0A || byte == 0x0D else {
                guard line.count < maximumLine else { throw Oversized() }
                line.append(byte)
                continue
            }
            if isAtStart, line.starts(with: [0xEF, 0xBB, 0xBF]) { line.removeFirst(3) }
            isAtStart = false
            if let item = try endLine() { items.append(item) }
            line.removeAll(keepingCapacity: true)
        }
        return items
    }

    private mutating func endLine() throws(Oversized) -> Item? {
        if line.isEmpty { return dispatch() }
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { return try field(line[...], value: []) }
        if colon == 0 { return .comment }
        var value = line[(colon + 1)...]
        if value.first == UInt8(ascii: " ") { value = value.dropFirst() }
        return try field(line[..<colon], value: value)
    }

    private mutating func field(_ field: ArraySlice<UInt8>, value: ArraySlice<UInt8>) throws(Oversized) -> Item? {
        switch String(decoding: field, as: UTF8.self) {
        case "data":
            guard data.count + value.count < maximumEvent else { throw Oversized() }
            if hasData { data.append(0x0A) }
            data.append(contentsOf: value)
            hasData = true
        case "event": name = String(decoding: value, as: UTF8.self)
        case "id": if !value.contains(0) { lastEventID = String(decoding: value, as: UTF8.self) }
        case "retry":
            if !value.isEmpty, value.count < 10, value.allSatisfy({ (48...57).contains($0) }) {
                return Int(String(decoding: value, as: UTF8.self)).map(Item.retry)
            }
        default: break
        }
        return nil
    }

    private mutating func dispatch() -> Item? {
        defer {
            data.removeAll(keepingCapacity: true)
            hasData = false
            name = ""
        }
        guard hasData else { return nil }
        return .event(
            ServerSentEvent(lastEventID: lastEventID, name: name.isEmpty ? "message" : name, data: String(decoding: data, as: UTF8.self))
        )
    }
}
