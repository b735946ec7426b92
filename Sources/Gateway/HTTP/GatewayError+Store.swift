import JobStore

extension GatewayError {
    /// What a failure of the store means for whoever asked.
    init(_ error: StoreError) {
        switch error.code {
        case .unavailable: self.init(.unavailable, "Redis does not answer: \(error.message)", retryAfterSeconds: 2)
        case .incompatible: self.init(.redisMisconfigured, error.message, retryAfterSeconds: 30)
        case .invalid: self.init(.invalidValue, error.message, field: Self.field(of: error.message))
        case .conflict: self.init(.conflict, error.message)
        case .gone: self.init(.gone, error.message)
        case .full: self.init(.queueFull, error.message, retryAfterSeconds: 5)
        case .draining: self.init(.queueDraining, error.message, retryAfterSeconds: 60)
        case .unknownJob: self.init(.jobNotFound, error.message)
        case .unknownGroup: self.init(.groupNotFound, error.message)
        case .unknownQueue: self.init(.unknownQueue, error.message, field: "queue")
        // The store's words may hold Redis's; people outside get none of it, the log does.
        case .corrupt: self.init(.internalError, "the job's data in Redis is not what it should be; the gateway's log says more")
        }
    }

    /// Refusals of the store begin with `field: `.
    private static func field(of message: String) -> String? {
        guard let colon = message.firstIndex(of: ":") else { return nil }
        let name = message[..<colon]
        return name.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7a) || $0 == 0x5f } ? String(name) : nil
    }
}
