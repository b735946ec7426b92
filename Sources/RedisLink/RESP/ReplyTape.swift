import NIOCore

/// What hiredis' callbacks write down: the elements of replies in the order of the wire, their bytes side by side.
///
/// hiredis calls depth first, so a flat list needs no parent pointers, and a reply that spans several feeds simply continues.
/// Nothing here keeps a pointer into hiredis' buffer, which moves between calls.
struct ReplyTape {
    enum Node {
        case null
        case integer(Int64)
        case status(offset: Int, length: Int)
        case bulk(offset: Int, length: Int)
        case error(offset: Int, length: Int)
        case array(count: Int)
    }

    /// Why a callback refused; hiredis itself only reports "out of memory" then.
    enum Refusal: String {
        case tooLarge = "a reply is larger than the limit"
        case tooManyElements = "an array has more elements than the limit"
    }

    private(set) var nodes: ContiguousArray<Node> = []
    private(set) var bytes = ByteBuffer()
    private(set) var refusal: Refusal?
    private let bytesMax: Int
    private let elementsMax: Int

    init(bytesMax: Int, elementsMax: Int) {
        self.bytesMax = bytesMax
        self.elementsMax = elementsMax
    }

    // MARK: Called by hiredis

    mutating func appendString(_ source: UnsafeRawBufferPointer, _ node: (Int, Int) -> Node) -> Bool {
        guard hasRoom(for: source.count) else { return false }
        let offset = bytes.writerIndex
        bytes.writeBytes(source)
        nodes.append(node(offset, source.count))
        return true
    }

    mutating func append(_ node: Node) -> Bool {
        guard hasRoom(for: 0) else { return false }
        nodes.append(node)
        return true
    }

    mutating func appendArray(count: Int) -> Bool {
        guard count <= elementsMax else {
            refusal = .tooManyElements
            return false
        }
        return append(.array(count: count))
    }

    /// Small elements are counted too: `:1` ten million times must not pass a limit meant for memory.
    private mutating func hasRoom(for count: Int) -> Bool {
        guard bytes.writerIndex + nodes.count * MemoryLayout<Node>.stride + count <= bytesMax else {
            refusal = .tooLarge
            return false
        }
        return true
    }

    // MARK: Called between feeds

    /// Room for all strings of a feed, so that they are written without growing.
    mutating func reserve(_ count: Int) {
        if bytes.capacity == 0 { bytes.reserveCapacity(count) }
    }

    /// Starts a new tape with a buffer of its own, keeping the unfinished elements from `mark` on.
    ///
    /// Slices handed out share the old buffer: writing on into it would copy all of it.
    mutating func cut(keepingFrom mark: Int) {
        guard mark < nodes.count else {
            nodes.removeAll(keepingCapacity: nodes.capacity <= 1_024)
            bytes = ByteBuffer()
            return
        }
        var kept = ContiguousArray<Node>()
        var keptBytes = ByteBuffer()
        for node in nodes[mark...] {
            switch node {
            case .null, .integer, .array: kept.append(node)
            case .status(let offset, let length): kept.append(.status(offset: move(offset, length, to: &keptBytes), length: length))
            case .bulk(let offset, let length): kept.append(.bulk(offset: move(offset, length, to: &keptBytes), length: length))
            case .error(let offset, let length): kept.append(.error(offset: move(offset, length, to: &keptBytes), length: length))
            }
        }
        nodes = kept
        bytes = keptBytes
    }

    private func move(_ offset: Int, _ length: Int, to target: inout ByteBuffer) -> Int {
        let position = target.writerIndex
        target.writeImmutableBuffer(slice(offset, length))
        return position
    }

    // MARK: Reading

    func slice(_ offset: Int, _ length: Int) -> ByteBuffer {
        // In range by construction: the offsets were counted while writing.
        bytes.getSlice(at: offset, length: length) ?? ByteBuffer()
    }

    func text(_ offset: Int, _ length: Int) -> String { bytes.getString(at: offset, length: length) ?? "" }

    /// The value that starts at `index`; moves `index` behind it.
    func value(at index: inout Int) -> RESPValue {
        let node = nodes[index]
        index += 1
        switch node {
        case .null: return .null
        case .integer(let value): return .integer(value)
        case .status(let offset, let length): return .status(text(offset, length))
        case .error(let offset, let length): return .error(text(offset, length))
        case .bulk(let offset, let length): return .bulk(slice(offset, length))
        case .array(let count):
            var values: [RESPValue] = []
            values.reserveCapacity(count)
            for _ in 0..<count { values.append(value(at: &index)) }
            return .array(values)
        }
    }
}
