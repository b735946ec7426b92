public import NIOCore
public import ProgressCore

/// One published event: its fixed-width header, parsed, and the JSON body, untouched.
///
/// The payload is 21 ASCII bytes and the body: `1` (version), 16 hex digits of seq, one letter of kind
/// (`s` state, `m` milestone, `t` terminal, `l` lossy: log or preview, without a seq of its own), one digit of phase
/// (`Phase.rank`), one flag digit (bit 0: a cancel has been requested), one space.
public struct LiveEvent: Sendable {
    public enum Kind: UInt8, Sendable { case state = 0x73, milestone = 0x6d, terminal = 0x74, lossy = 0x6c }
    public let seq: Int
    public let kind: Kind
    public let phase: Phase
    public let body: ByteBuffer
    public static let headerLength = 21
    /// Nil when the payload is not of this form.
    public init?(payload: ByteBuffer) { fatalError() }
}
