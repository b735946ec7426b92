/// What the helpers of this room throw: said loudly, so that a missing program or a stuck condition is never taken for a pass.
public struct TestSupportError: Error, Sendable, CustomStringConvertible {
    /// What went wrong, for the `switch`es of tests.
    public enum Code: String, Sendable {
        /// A program that the tests need is not installed; the message names the package.
        case missingProgram
        /// A condition did not come true in time.
        case timedOut
        /// A process did not start, or ended when it should not have.
        case process
        /// A call of the operating system failed.
        case system
    }

    public var code: Code
    public var message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "\(code.rawValue): \(message)" }
}

/// How long a wait for a condition really goes on: what a test names is what a quiet machine needs, and test machines are not
/// quiet. A condition that comes true costs no more by it.
func patience(_ limit: Duration) -> Duration { max(limit * 3, .seconds(30)) }

/// Waits until `condition` is true: polls every 5 ms, and throws `.timedOut` naming `what` after at least `limit`.
///
/// Tests order things by conditions, never by sleeping; this is the one place that polls.
public func eventually(
    within limit: Duration = .seconds(10),
    _ what: String = "the condition",
    _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now.advanced(by: patience(limit))
    while true {
        if try await condition() { return }
        guard ContinuousClock.now < deadline else {
            throw TestSupportError(.timedOut, "\(what) did not become true within \(limit)")
        }
        try await Task.sleep(for: .milliseconds(5))
    }
}

/// Like ``eventually(within:_:_:)``, for a value that is nil until it is there.
public func eventually<Value>(
    within limit: Duration = .seconds(10),
    _ what: String = "the value",
    produce: () async throws -> Value?
) async throws -> Value {
    var result: Value?
    try await eventually(within: limit, what) {
        result = try await produce()
        return result != nil
    }
    guard let result else { throw TestSupportError(.timedOut, what) }
    return result
}
