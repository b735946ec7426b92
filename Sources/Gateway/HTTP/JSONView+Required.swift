import NIOCore

/// A request's body and its members, read strictly: what is wrong is refused by the member's path.
extension CheckedJSON {
    /// The body of a request, which must be a JSON object.
    init(object body: ByteBuffer, limits: GatewayLimits) throws(GatewayError) {
        do {
            try self.init(Array(body.readableBytesView), maximumDepth: limits.jsonDepth)
        } catch {
            throw GatewayError(.malformedJSON, "the body is not JSON: \(error.message) at byte \(error.offset)")
        }
        guard root.kind == .object else { throw GatewayError(.wrongType, "the body must be a JSON object") }
    }
}

extension JSONView {
    /// Calls `body` for every member that is not null, which is one that is not there. Of two members with one name every reader
    /// takes another one, so that is refused.
    func forEachPresentMember(
        of path: String? = nil,
        _ body: (_ name: String, _ value: JSONView) throws(GatewayError) -> Void
    ) throws(GatewayError) {
        var names: Set<String> = []
        try forEachMember { (name, value) throws(GatewayError) in
            guard names.insert(name).inserted else {
                let field = (path.map { $0 + "." } ?? "") + name.prefix(64)
                throw GatewayError(.invalidValue, "\(field) is there twice", field: field)
            }
            if value.kind != .null { try body(name, value) }
        }
    }

    func wrongType(_ field: String, _ needed: Kind) -> GatewayError {
        GatewayError(.wrongType, "\(field): \(needed.rawValue) needed, \(kind.rawValue) found", field: field)
    }

    func require(_ needed: Kind, _ field: String) throws(GatewayError) {
        guard kind == needed else { throw wrongType(field, needed) }
    }

    func requireText(_ field: String, most: Int, allowsEmpty: Bool = false) throws(GatewayError) -> String {
        guard let text = string else { throw wrongType(field, .string) }
        guard ((allowsEmpty ? 0 : 1)...most).contains(text.utf8.count),
            text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7f })
        else {
            throw GatewayError(
                .invalidValue,
                "\(field): \(allowsEmpty ? "at most" : "1–")\(allowsEmpty ? " " : "")\(most) bytes without control characters are needed",
                field: field
            )
        }
        return text
    }

    func requireInteger(_ field: String, _ range: ClosedRange<Int>) throws(GatewayError) -> Int {
        try require(.number, field)
        guard let number = int, range.contains(number) else {
            throw GatewayError(.invalidValue, "\(field): a whole number \(range.lowerBound)…\(range.upperBound) is needed", field: field)
        }
        return number
    }

    func requireNumber(_ field: String, _ range: ClosedRange<Double>) throws(GatewayError) -> Double {
        try require(.number, field)
        guard let number = double, range.contains(number) else {
            throw GatewayError(.invalidValue, "\(field): a number \(range.lowerBound)…\(range.upperBound) is needed", field: field)
        }
        return number
    }

    func requireFlag(_ field: String) throws(GatewayError) -> Bool {
        guard let flag = bool else { throw wrongType(field, .boolean) }
        return flag
    }
}
