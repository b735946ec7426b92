/// The peer broke RFC 6455 or a limit; the connection must be closed with `closeCode`.
public struct WebSocketError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// Reserved bits, opcodes, masking, fragmentation or lengths against the RFC.
        case protocolViolation
        /// A text message or close reason is not UTF-8.
        case invalidUTF8
        /// The message is longer than this end accepts.
        case messageTooBig
        /// The HTTP answer to a client's handshake is not an upgrade.
        case handshakeRefused
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The status to close with (RFC 6455 §7.4.1).
    public var closeCode: WebSocketCloseCode {
        switch code {
        case .protocolViolation, .handshakeRefused: .protocolError
        case .invalidUTF8: .invalidPayload
        case .messageTooBig: .messageTooBig
        }
    }

    public var description: String { "\(code.rawValue): \(message)" }
}
