public import NIOCore

/// One reply of RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
public enum RESPValue: Sendable, Hashable {
    /// `$-1` and `*-1`
    case null
    case integer(Int64)
    case status(String)
    /// All bulk strings of one reply are slices of one buffer: copy what you keep long out of a large reply.
    case bulk(ByteBuffer)
    /// The text without the leading `-`
    case error(String)
    indirect case array([RESPValue])
}

extension RESPValue {
    /// An integer, or a bulk or status that is one in decimal; `+1` and blanks are none.
    public var int: Int? {
        switch self {
        case .integer(let value): Int(exactly: value)
        case .bulk(let bytes): bytes.withUnsafeReadableBytes { Self.parseDecimal($0) }
        case .status(let text): Int(text)
        case .null, .error, .array: nil
        }
    }

    /// The text of a bulk (ill-formed UTF-8 repaired) or status, or an integer in decimal.
    public var string: String? {
        switch self {
        case .bulk(let bytes): String(buffer: bytes)
        case .status(let text): text
        case .integer(let value): String(value)
        case .null, .error, .array: nil
        }
    }

    /// The bytes of a bulk.
    public var buffer: ByteBuffer? {
        if case .bulk(let bytes) = self { bytes } else { nil }
    }

    public var array: [RESPValue]? {
        if case .array(let values) = self { values } else { nil }
    }

    public var isNull: Bool { self == .null }

    private static func parseDecimal(_ bytes: UnsafeRawBufferPointer) -> Int? {
        let isNegative = bytes.first == UInt8(ascii: "-")
        let digits = isNegative ? bytes.dropFirst() : bytes[...]
        guard !digits.isEmpty else { return nil }
        var value = 0
        for byte in digits {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            let digit = Int(byte &- UInt8(ascii: "0"))
            let (product, tooLarge) = value.multipliedReportingOverflow(by: 10)
            // Counting downwards for negative numbers lets Int.min through.
            let (sum, tooFar) = isNegative ? product.subtractingReportingOverflow(digit) : product.addingReportingOverflow(digit)
            if tooLarge || tooFar { return nil }
            value = sum
        }
        return value
    }
}
