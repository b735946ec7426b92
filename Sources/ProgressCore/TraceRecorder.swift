/// When the stages of a job began and ended and when they ticked, in bounded space: of a stage with many ticks only every
/// second, fourth, … is kept.
public struct TraceRecorder: Sendable {
    public struct Stage: Sendable, Hashable {
        public var name: String
        /// Ticks it had in all; nil without ticks.
        public var units: Double?
        /// Milliseconds since the job began.
        public var startMs: Int
        public var endMs: Int
        public var ticks: [Tick] = []
    }

    public struct Tick: Sendable, Hashable {
        public var atMs: Int
        public var value: Double
    }

    public private(set) var stages: [Stage] = []
    private let startedAtMs: Int
    /// Of the current stage: one of so many ticks is kept.
    private var stride = 1
    private var seen = 0
    private var isFull = false

    init(startedAtMs: Int) {
        self.startedAtMs = startedAtMs
    }

    mutating func enter(_ name: String, atMs: Int) {
        end(atMs: atMs)
        isFull = stages.count == ProgressLimits.stages
        guard !isFull else { return }
        (stride, seen) = (1, 0)
        stages.append(Stage(name: name, startMs: atMs - startedAtMs, endMs: atMs - startedAtMs))
    }

    mutating func end(atMs: Int) {
        guard !isFull, let last = stages.indices.last else { return }
        stages[last].endMs = atMs - startedAtMs
    }

    mutating func tick(_ value: Double, units: Double, atMs: Int) {
        if stages.isEmpty { stages.append(Stage(name: "", startMs: 0, endMs: 0)) }
        guard !isFull, let last = stages.indices.last else { return }
        if stages[last].ticks.isEmpty { stages[last].ticks.reserveCapacity(ProgressLimits.traceTicks) }
        stages[last].units = units
        let tick = Tick(atMs: atMs - startedAtMs, value: value)
        // A restart is worth keeping, and so is the end.
        let isNotable = stages[last].ticks.last.map { value < $0.value } ?? true || value >= units
        seen += 1
        guard isNotable || seen % stride == 0 else { return }
        if stages[last].ticks.count == ProgressLimits.traceTicks { thin(last) }
        stages[last].ticks.append(tick)
    }

    /// Drops every second tick of a stage, in place.
    private mutating func thin(_ stage: Int) {
        let kept = stages[stage].ticks.count / 2
        for index in 0..<kept { stages[stage].ticks[index] = stages[stage].ticks[2 * index + 1] }
        stages[stage].ticks.removeLast(stages[stage].ticks.count - kept)
        stride = min(stride * 2, 1 << 40)
    }
}
