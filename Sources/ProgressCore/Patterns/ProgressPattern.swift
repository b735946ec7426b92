/// A line of a generator's output that tells its progress, as a pipeline's author describes it.
public struct ProgressPattern: Sendable, Hashable {
    public let match: LinePattern
    /// The stage that a matching line means, where the line itself does not name it.
    public let stage: String?

    /// What groups may be called, and what they are then.
    public static let groups = ["step", "steps", "percent", "stage", "item", "items", "message"]

    /// Takes values that are known to be right; what an author wrote goes through `Pipeline.init(validating:)`.
    public init(match: LinePattern, stage: String? = nil) {
        self.match = match
        self.stage = stage
    }

    /// What `line` says; nil when it does not match, or says nothing.
    public func update(for line: PatternLine) -> ProgressUpdate? {
        guard let values = match.firstMatch(in: line) else { return nil }
        var update = ProgressUpdate(stage: stage)
        for (name, value) in zip(match.groups, values) {
            guard let value, !value.isEmpty else { continue }
            switch name {
            case "step": update.step = Self.whole(value)
            case "steps": update.steps = Self.whole(value)
            case "percent": update.percent = Double(value)
            case "stage": update.stage = value
            case "item": update.item = Self.whole(value)
            case "items": update.items = Self.whole(value)
            case "message": update.message = value
            default: break
            }
        }
        return update == ProgressUpdate() ? nil : update
    }

    /// Also `12.0` and more digits than any loop has.
    private static func whole(_ text: String) -> Int? {
        guard let value = Double(text), value.isFinite else { return nil }
        return Int(min(max(value, -9e15), 9e15))
    }
}
