import NIOCore

/// What arrives on a subscribed connection.
enum RedisPush {
    case message(channel: ByteBuffer, payload: ByteBuffer)
    case subscribed(channel: String)
    case unsubscribed(channel: String)
    case pong
    case error(String)
    case other

    /// Reads the message that starts at `index` of the tape; moves `index` behind it.
    init(_ tape: ReplyTape, at index: inout Int) {
        let start = index
        let nodes = tape.nodes
        if case .array(count: 3) = nodes[start], case .bulk(let kind, let kindLength) = nodes[start + 1],
            case .bulk(let name, let nameLength) = nodes[start + 2]
        {
            switch nodes[start + 3] {
            case .bulk(let payload, let payloadLength) where tape.isMessage(kind, kindLength):
                index = start + 4
                self = .message(channel: tape.slice(name, nameLength), payload: tape.slice(payload, payloadLength))
                return
            case .integer:
                index = start + 4
                switch tape.text(kind, kindLength) {
                case "subscribe": self = .subscribed(channel: tape.text(name, nameLength))
                case "unsubscribe": self = .unsubscribed(channel: tape.text(name, nameLength))
                default: self = .other
                }
                return
            default: break
            }
        }
        self.init(tape.value(at: &index))
    }

    /// The rare shapes: `["pong", ""]` while subscribed, `+PONG` or the echoed bulk while not.
    private init(_ value: RESPValue) {
        switch value {
        case .error(let text): self = .error(text)
        case .status("PONG"): self = .pong
        case .array(let values) where values.first?.string == "pong": self = .pong
        default: self = .other
        }
    }
}

extension ReplyTape {
    fileprivate func isMessage(_ offset: Int, _ length: Int) -> Bool {
        length == 7 && bytes.withUnsafeReadableBytes { $0[offset..<offset + 7].elementsEqual("message".utf8) }
    }
}
