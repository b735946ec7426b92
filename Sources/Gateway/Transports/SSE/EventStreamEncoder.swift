import NIOCore

/// Server-Sent Events (WHATWG HTML §9.2): one block per event, its JSON in `data`, its cursor in `id`.
enum EventStreamEncoder {
    /// The cursor that says "everything was delivered"; a reconnect with it is answered 204.
    static let endCursor = "end"

    /// One block. Events with a seq carry it as `id`, the last one of a job carries `end`; others leave the cursor alone.
    static func block(kind: OutboundEvent.Kind, seq: Int, body: ByteBuffer) -> ByteBuffer {
        let count = body.readableBytes
        var block = ByteBufferAllocator().buffer(capacity: idBytes(kind: kind, seq: seq) + 8 + count)
        switch kind {
        case .state, .milestone: block.writeString("id: \(seq)\n")
        case .terminal, .gone: block.writeStaticString("id: end\n")
        case .lossy, .queue, .reset, .control: break
        }
        block.writeStaticString("data: ")
        if body.readableBytesView.contains(where: { $0 == 10 || $0 == 13 }) {
            appendLines(of: body, to: &block)
        } else {
            block.writeImmutableBuffer(body)
        }
        block.writeStaticString("\n\n")
        return block
    }

    /// Bytes of the `id` line at the start of such a block.
    static func idBytes(kind: OutboundEvent.Kind, seq: Int) -> Int {
        switch kind {
        case .state, .milestone: 5 + decimalDigits(seq)
        case .terminal, .gone: 8
        case .lossy, .queue, .reset, .control: 0
        }
    }

    /// A result or error may have been written over several lines: every line break starts a new `data` line, which the
    /// client joins by LF again. Without this a CR or LF in the JSON would end the field.
    private static func appendLines(of body: ByteBuffer, to block: inout ByteBuffer) {
        var wasReturn = false
        for byte in body.readableBytesView {
            if byte == 10, wasReturn {
                wasReturn = false
                continue
            }
            wasReturn = byte == 13
            if byte == 10 || byte == 13 {
                block.writeStaticString("\ndata: ")
            } else {
                block.writeInteger(byte)
            }
        }
    }

    private static func decimalDigits(_ number: Int) -> Int {
        var digits = 1
        var rest = number / 10
        while rest > 0 {
            digits += 1
            rest /= 10
        }
        return digits
    }
}
