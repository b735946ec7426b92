import JobStore
import ProgressCore

/// The JSON of `GET /v1/jobs/J`: the last event, byte for byte, with the job's own fields spliced in behind it.
enum JobSheet {
    private static let texts = ["queue", "pipeline", "worker", "class", "prefer", "retry_of", "retried_as"]
    private static let numbers = ["priority", "max_attempts", "created_at", "started_at", "updated_at", "finished_at", "expires_at"]
    /// JSON that was checked when it was written.
    private static let raws = ["params", "result", "error", "cancel", "plan"]

    /// What to read for the short sheet, and for the full one.
    static let fields = ["owner", "phase", "body"] + texts + numbers
    static let allFields = fields + raws

    /// - Parameters:
    ///   - place: where it waits, when it does.
    ///   - outlook: for how long.
    static func text(_ snapshot: JobSnapshot, place: JobPlace?, outlook: WaitOutlook?, isFull: Bool) -> String {
        var text = snapshot.body
        guard text.last == "}" else { return "{}" }
        // `result`, `error` and `cancel` may stand in the event already.
        let present = isFull ? members(of: text) : []
        text.removeLast()
        for name in texts {
            // What no worker takes stands in no queue that anybody could name.
            guard let value = snapshot.fields[name], !value.isEmpty, name != "queue" || value != Keys.heldQueue else { continue }
            text += ",\"\(name)\":\(JSONText.quoted(value))"
        }
        for name in numbers {
            if let value = snapshot.fields[name].flatMap({ Int($0) }) { text += ",\"\(name)\":\(value)" }
        }
        text += (place?.members ?? "") + (outlook?.members ?? "")
        if isFull {
            for name in raws where !present.contains(name) {
                if let value = snapshot.fields[name], !value.isEmpty { text += ",\"\(name)\":\(value)" }
            }
        }
        return text + "}"
    }

    private static func members(of body: String) -> Set<String> {
        var names: Set<String> = []
        // The event is ours; its result may be nested as deep as its writer liked.
        (try? CheckedJSON(Array(body.utf8), maximumDepth: 1024))?.root.forEachMember { name, _ in names.insert(name) }
        return names
    }
}
