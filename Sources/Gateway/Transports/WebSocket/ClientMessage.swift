import NIOCore

/// What a WebSocket client may say: JSON objects, told apart by `op`; unknown members are ignored.
///
/// - `{"op":"watch","jobs":["A","B"],"since":{"A":41},"id":1}`: follow these jobs. `since` gives, per job, the seq of the
///   newest event the client has (left out: none). Answered by
///   `{"type":"ack","id":1,"jobs":{"A":"ok","B":{"error":{"code":"…","message":"…"}}}}` with one member per name: `"ok"` means
///   that the watch stands, also when it stood before (then `since` is ignored). What becomes clear later comes as events of
///   the job: `{"job":"B","type":"error","error":{"code":"job_not_found",…}}` or `gone`.
/// - `{"op":"unwatch","jobs":["A"],"id":2}`: answered by an ack with `"ok"` for every name.
/// - `{"op":"ping","id":3}`: answered by `{"type":"pong","id":3,"at":…}`.
/// - `{"op":"auth",…}`: refused with `auth_not_configured` while the gateway has no tokens to check.
///
/// `id` is any integer of the client's choice and may be left out. Whatever cannot be understood is answered by
/// `{"type":"error","id":…,"error":{"code","message"}}`; the connection stays, until it happens too often (close 4400).
enum ClientMessage: Equatable {
    case watch(jobs: [String], since: [String: Int], id: Int?)
    case unwatch(jobs: [String], id: Int?)
    case ping(id: Int?)
    case auth(id: Int?)

    struct Refusal: Error, Equatable {
        let id: Int?
        let problem: WatchProblem
    }

    static func parse(_ text: ByteBuffer) throws(Refusal) -> ClientMessage {
        guard let value = JSONValue(parsing: text.readableBytesView), case .object = value else {
            throw Refusal(id: nil, problem: WatchProblem("malformed_json", "a message is one JSON object of at most 8 levels"))
        }
        var id: Int?
        switch value["id"] {
        case .integer(let number)?: id = number
        case nil, .null?: break
        default: throw Refusal(id: nil, problem: WatchProblem("invalid_message", "`id` must be an integer"))
        }
        guard case .string(let op)? = value["op"] else {
            throw Refusal(id: id, problem: WatchProblem("invalid_message", "`op` must be one of watch, unwatch, ping, auth"))
        }
        switch op {
        case "watch": return .watch(jobs: try jobs(value, id), since: try since(value, id), id: id)
        case "unwatch": return .unwatch(jobs: try jobs(value, id), id: id)
        case "ping": return .ping(id: id)
        case "auth": return .auth(id: id)
        default: throw Refusal(id: id, problem: WatchProblem("unknown_op", "`op` must be one of watch, unwatch, ping, auth"))
        }
    }

    private static func jobs(_ value: JSONValue, _ id: Int?) throws(Refusal) -> [String] {
        let refusal = Refusal(id: id, problem: WatchProblem("invalid_message", "`jobs` must be an array of job ids, at least one"))
        guard case .array(let elements)? = value["jobs"], !elements.isEmpty else { throw refusal }
        var names: [String] = []
        var seen: Set<String> = []
        for element in elements {
            guard case .string(let name) = element else { throw refusal }
            if seen.insert(name).inserted { names.append(name) }
        }
        return names
    }

    private static func since(_ value: JSONValue, _ id: Int?) throws(Refusal) -> [String: Int] {
        let refusal = Refusal(
            id: id,
            problem: WatchProblem("invalid_message", "`since` must be an object of job id to seq, an integer ≥ 0")
        )
        switch value["since"] {
        case nil, .null?: return [:]
        case .object(let members)?:
            var since: [String: Int] = [:]
            for (name, value) in members {
                guard case .integer(let seq) = value, seq >= 0 else { throw refusal }
                since[name] = seq
            }
            return since
        default: throw refusal
        }
    }
}
