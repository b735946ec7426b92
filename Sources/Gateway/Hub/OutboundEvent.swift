import JobStore
import NIOCore
import ProgressCore
import WebSocketWire

/// How events are framed for one connection.
enum Transport: UInt8, Sendable {
    case webSocket
    /// Event stream of one job: each event carries its `id`.
    case eventStream
    /// Event stream of several jobs: one `id` block per flush, see `EventCursor`.
    case multiplexedEventStream
}

/// Which encodings somebody waits for.
struct TransportSet: OptionSet, Sendable {
    let rawValue: UInt8
    static let webSocket = TransportSet(rawValue: 1)
    static let eventStream = TransportSet(rawValue: 2)
}

/// One event on its way out: encoded once per transport, shared by every socket on every loop.
final class OutboundEvent: Sendable {
    enum Kind: UInt8, Sendable {
        /// The bar moved; a newer one may replace it.
        case state
        /// Phase or stage changed; never dropped.
        case milestone
        /// The end of the job; never dropped, once per watcher.
        case terminal
        /// Log or preview; goes only to sockets that are ready.
        case lossy
        /// A place in line, made here; the newest wins.
        case queue
        /// History went back; `seq` is where it stands now.
        case reset
        /// The job is no longer there.
        case gone
        /// Anything else made here.
        case control
    }

    let kind: Kind
    /// Number of the change; 0 for what has none.
    let seq: Int
    let phase: Phase
    /// The JSON object.
    let body: ByteBuffer
    private let frame: ByteBuffer?
    private let block: ByteBuffer?

    /// Encodes for `transports` at once; for another transport each caller pays its own encoding.
    init(kind: Kind, seq: Int, phase: Phase, body: ByteBuffer, for transports: TransportSet = []) {
        self.kind = kind
        self.seq = seq
        self.phase = phase
        let frame = transports.contains(.webSocket) ? WebSocketFrame.make(.text, body) : nil
        self.frame = frame
        self.block = transports.contains(.eventStream) ? EventStreamEncoder.block(kind: kind, seq: seq, body: body) : nil
        // A body is kept for as long as its job is watched: as a part of our own buffer, never of the larger one Redis filled.
        let own = frame.flatMap { frame in
            frame.getSlice(at: frame.readerIndex + frame.readableBytes - body.readableBytes, length: body.readableBytes)
        }
        self.body = own ?? ByteBuffer(bytes: body.readableBytesView)
    }

    convenience init(live event: LiveEvent, for transports: TransportSet) {
        let kind: Kind =
            switch event.kind {
            case .state: .state
            case .milestone: .milestone
            case .terminal: .terminal
            case .lossy: .lossy
            }
        self.init(kind: kind, seq: event.seq, phase: event.phase, body: event.body, for: transports)
    }

    /// The state of a job as read from its hash.
    convenience init(head: JobHead, for transports: TransportSet) {
        self.init(kind: head.phase.isTerminal ? .terminal : .state, seq: head.seq, phase: head.phase, body: head.body, for: transports)
    }

    convenience init(milestone: Milestone, for transports: TransportSet) {
        let kind: Kind = milestone.phase.isTerminal ? .terminal : .milestone
        self.init(kind: kind, seq: milestone.seq, phase: milestone.phase, body: milestone.body, for: transports)
    }

    /// The bytes of this event on a socket of `transport`.
    func bytes(for transport: Transport) -> ByteBuffer {
        switch transport {
        case .webSocket:
            return frame ?? WebSocketFrame.make(.text, body)
        case .eventStream:
            return block ?? EventStreamEncoder.block(kind: kind, seq: seq, body: body)
        case .multiplexedEventStream:
            guard var block else { return EventStreamEncoder.block(kind: .control, seq: 0, body: body) }
            block.moveReaderIndex(forwardBy: EventStreamEncoder.idBytes(kind: kind, seq: seq))
            return block
        }
    }

    /// Counts in the order of changes: it is newer or older than others of its job.
    var isOrdered: Bool { kind == .state || kind == .milestone || kind == .terminal }
}
