public import NIOCore
public import ProgressCore

/// One published event: its fixed-width header, parsed, and the JSON body, untouched.
///
/// The payload is 21 ASCII bytes and the body: `1` (version), 16 hex digits of seq, one letter of kind
/// (`s` state, `m` milestone, `t` terminal, `l` lossy: log or preview, without a seq of its own), one digit of phase
/// (`Phase.rank`), one flag digit (bit 0: a cancel has been requested), one space. `event.lua` writes it.
public struct LiveEvent: Sendable {
    public enum Kind: UInt8, Sendable {
        /// The bar moved: a newer one may replace it on its way.
        case state = 0x73
        /// Phase or stage changed: always delivered.
        case milestone = 0x6d
        /// The end: always delivered, exactly once per watcher.
        case terminal = 0x74
        /// Log lines or a preview: dropped first.
        case lossy = 0x6c
    }

    /// Number of the change, from 1; of a lossy event the seq of the job's last change.
    public let seq: Int
    public let kind: Kind
    public let phase: Phase
    /// The JSON, a slice of the payload.
    public let body: ByteBuffer

    /// Bytes before the body.
    public static let headerLength = 21

    /// Parses the header; nil when the payload is not of this form.
    public init?(payload: ByteBuffer) {
        guard payload.readableBytes > Self.headerLength else { return nil }
        let parsed: (seq: Int, kind: Kind, phase: Phase)? = payload.withUnsafeReadableBytes { bytes in
            guard bytes[0] == UInt8(ascii: "1"), bytes[20] == UInt8(ascii: " "), let kind = Kind(rawValue: bytes[17]) else { return nil }
            var seq = 0
            for index in 1...16 {
                guard let digit = Self.hexDigit(bytes[index]), index > 2 || digit == 0 else { return nil }
                seq = seq << 4 | digit
            }
            guard let phase = Self.phase(digit: bytes[18]) else { return nil }
            return (seq, kind, phase)
        }
        guard let parsed,
            let body = payload.getSlice(
                at: payload.readerIndex + Self.headerLength,
                length: payload.readableBytes - Self.headerLength
            )
        else { return nil }
        self.seq = parsed.seq
        self.kind = parsed.kind
        self.phase = parsed.phase
        self.body = body
    }

    private static func hexDigit(_ byte: UInt8) -> Int? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): Int(byte) - 0x30
        case UInt8(ascii: "a")...UInt8(ascii: "f"): Int(byte) - 0x61 + 10
        default: nil
        }
    }

    private static func phase(digit: UInt8) -> Phase? {
        switch digit {
        case 0x30: .queued
        case 0x31: .analyzing
        case 0x32: .generating
        case 0x33: .postProcessing
        case 0x34: .complete
        case 0x35: .failed
        case 0x36: .cancelled
        default: nil
        }
    }
}
