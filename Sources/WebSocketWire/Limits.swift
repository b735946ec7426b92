/// Every bound of this room.
public enum WebSocketLimits {
    /// Longest payload of a ping, pong or close frame (RFC 6455 §5.5).
    public static let controlPayloadBytes = 125
    /// Longest reason of a close frame: the payload less the two bytes of the code.
    public static let closeReasonBytes = controlPayloadBytes - 2
    /// Longest frame header: 2 bytes, 8 of extended length, 4 of mask.
    public static let headerBytes = 14
    /// Longest HTTP response head a client reads before it gives up: a handshake answer is a few hundred bytes.
    public static let responseHeadBytes = 16 * 1024
}
