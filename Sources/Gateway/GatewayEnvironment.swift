import ProgressCore
import Telemetry

/// The clock and the dice, handed in so that tests hold them.
struct GatewayEnvironment: Sendable {
    /// Unix milliseconds.
    var nowMs: @Sendable () -> Int
    /// 64 random bits, unguessable in production.
    var random: @Sendable () -> UInt64

    static let system = GatewayEnvironment(
        nowMs: LineLogHandler.wallClockMs,
        random: {
            var generator = SystemRandomNumberGenerator()
            return generator.next()
        }
    )

    /// A fresh job id.
    func makeJobID() -> JobID {
        var generator = Generator(draw: random)
        return JobID.make(unixMs: nowMs(), random: &generator)
    }

    /// 128 random bits in lower-case hex: who has not been told cannot guess it.
    func makeSecretID() -> String { Self.hex(random()) + Self.hex(random()) }

    static func hex(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.utf8.count) + text
    }

    private struct Generator: RandomNumberGenerator {
        let draw: @Sendable () -> UInt64
        mutating func next() -> UInt64 { draw() }
    }
}
