import ProgressCore

struct QueueSlice: Hashable {
    let queue: String
    let partition: Int
}

/// A finding before it is confirmed.
struct AuditMark: Hashable {
    let code: AuditFinding.Code
    let subject: String
}

/// What one look saw.
struct AuditLook {
    let mark: AuditMark
    var isRepaired = false
    var isUncounted = false
}

/// Something that looked wrong, so that it can be looked at again.
enum AuditSuspect: Hashable {
    case job(JobID)
    case group(JobID)
    case place(key: String, queue: String, member: String)
    case line(QueueSlice)
    case counts(QueueSlice)
    case key(String, isKnown: Bool)
    case registration(String)
    case schema
    case workers

    /// Jobs are repaired before the counts that depend on them.
    var order: String {
        switch self {
        case .schema: "0"
        case .registration(let queue): "1 \(queue)"
        case .place(let key, _, let member): "2 \(key) \(member)"
        case .job(let job): "3 \(job)"
        case .group(let job): "4 \(job)"
        case .counts(let slice): "5 \(slice.queue) \(slice.partition)"
        case .line(let slice): "6 \(slice.queue) \(slice.partition)"
        case .key(let name, _): "7 \(name)"
        case .workers: "8"
        }
    }

    func finding(_ mark: AuditMark, isRepaired: Bool) -> AuditFinding {
        let queue: String? =
            switch self {
            case .place(_, let queue, _): queue
            case .counts(let slice): slice.queue
            default: nil
            }
        // The script names a line together with its last claim, which is no name for people.
        let subject = if case .line(let slice) = self { slice.queue } else { mark.subject }
        return AuditFinding(code: mark.code, subject: subject, queue: queue, isRepaired: isRepaired)
    }
}
