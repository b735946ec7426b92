/// Why a command ended without doing what was asked: one line for people and an exit code for scripts.
struct CommandError: Error, Equatable, CustomStringConvertible {
    /// What scripts see (DESIGN of the command line: 0 complete, 1 failed, 2 usage, 3 cancelled, 4 gone, 5 link lost).
    enum Code: Int32, Sendable {
        case failed = 1
        case usage = 2
        case absent = 4
        case linkLost = 5
    }

    let code: Code
    /// Names what is wrong and what to change.
    let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    static func usage(_ message: String) -> CommandError { CommandError(.usage, message) }

    var description: String { message }
}
