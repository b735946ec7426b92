import ProgressCore
import RedisLink

/// How a `ProgressState` travels to `advance.lua`: percents in tenths, everything as decimal text.
enum WireState {
    static func arguments(_ state: ProgressState, quietMs: Int = 0) -> [RedisArgument] {
        var out: [RedisArgument] = [.string(state.phase.rawValue), .int(tenths(state.percent)), .int(tenths(state.phasePercent))]
        func add(_ name: RedisArgument, _ value: RedisArgument?) {
            if let value { out += [name, value] }
        }
        add("percent_per_s", state.percentPerSecond.flatMap(significant).map { .string($0) })
        add("stage", state.stage.map { .string($0) })
        add("stage_percent", state.stagePercent.map { .int(tenths($0)) })
        add("step", natural(state.step))
        add("steps", natural(state.steps))
        add("item", natural(state.item))
        add("items", natural(state.items))
        add("message", state.message.map { .string($0) })
        add("eta_ms", natural(state.etaMs))
        add("eta_low_ms", natural(state.etaLowMs))
        add("eta_high_ms", natural(state.etaHighMs))
        add("stalled", state.isStalled ? "1" : nil)
        add("estimating", state.isEstimating ? "1" : nil)
        add("quiet_ms", quiet(quietMs))
        return out
    }

    /// Nil for less than a second, which most states are written after.
    static func quiet(_ quietMs: Int?) -> RedisArgument? {
        natural(quietMs.flatMap { $0 < 1000 ? nil : $0 })
    }

    /// 0…1000; what is not a number counts as 0, so that it can never move the bar.
    static func tenths(_ percent: Double) -> Int {
        guard percent > 0 else { return 0 }
        return percent >= 100 ? 1000 : Int((percent * 10).rounded())
    }

    static func natural(_ value: Int?) -> RedisArgument? {
        value.map { .int(min(max(0, $0), 999_999_999_999_999)) }
    }

    /// Four significant digits without exponent, e.g. `0.9`, `12.34`, `0.0001234`; nil for what is not a positive number.
    static func significant(_ value: Double) -> String? {
        guard value.isFinite, value > 0 else { return value == 0 ? "0" : nil }
        guard value < 1e6 else { return "1000000" }
        guard value >= 1e-6 else { return "0" }
        var decimals = 3
        var bound = 10.0
        while value >= bound, decimals > 0 {
            bound *= 10
            decimals -= 1
        }
        var low = 1.0
        while value < low {
            low /= 10
            decimals += 1
        }
        var power = 1
        for _ in 0..<decimals { power *= 10 }
        let scaled = Int((value * Double(power)).rounded())
        let whole = String(scaled / power)
        guard decimals > 0, scaled % power != 0 else { return whole }
        var fraction = String(scaled % power)
        fraction = String(repeating: "0", count: decimals - fraction.count) + fraction
        while fraction.last == "0" { fraction.removeLast() }
        return "\(whole).\(fraction)"
    }
}
