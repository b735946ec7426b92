import JobStore
import NIOCore
import ProgressCore

/// The JSON of the few events the gateway makes itself. All are small and rare; those of jobs come ready from Redis.
enum EventWriter {
    static func connected(connection: String, atMs: Int, heartbeatMs: Int) -> ByteBuffer {
        object {
            $0.member("type", "connected")
            $0.member("connection", connection)
            $0.member("server_time", atMs)
            $0.member("heartbeat_ms", heartbeatMs)
        }
    }

    /// The link to Redis is lost (`active`), or works again. What is shown may be stale in between.
    static func degraded(isActive: Bool, atMs: Int) -> ByteBuffer {
        object {
            $0.member("type", "degraded")
            $0.member("active", isActive)
            $0.member("at", atMs)
        }
    }

    /// History went back to `seq`: the snapshot that follows replaces everything known.
    static func reset(job: JobID, seq: Int, atMs: Int) -> ByteBuffer {
        object {
            $0.member("job", job.text)
            $0.member("type", "reset")
            $0.member("seq", seq)
            $0.member("at", atMs)
        }
    }

    static func gone(job: JobID, atMs: Int) -> ByteBuffer {
        object {
            $0.member("job", job.text)
            $0.member("type", "gone")
            $0.member("at", atMs)
        }
    }

    /// Where a job waits, and until when.
    static func queue(job: JobID, place: JobPlace, outlook: WaitOutlook?, atMs: Int) -> ByteBuffer {
        ByteBuffer(
            string: "{\"job\":\"\(job.text)\",\"type\":\"queue\"\(place.members)\(outlook?.members ?? "")"
                + ",\"at\":\(atMs)}"
        )
    }

    static func notice(reconnectAfterMs: Int, atMs: Int) -> ByteBuffer {
        object {
            $0.member("type", "notice")
            $0.member("code", "restarting")
            $0.member("reconnect_after_ms", reconnectAfterMs)
            $0.member("at", atMs)
        }
    }

    static func error(job: JobID? = nil, id: Int? = nil, _ problem: WatchProblem) -> ByteBuffer {
        object {
            if let job { $0.member("job", job.text) }
            $0.member("type", "error")
            if let id { $0.member("id", id) }
            $0.problem("error", problem)
        }
    }

    static func pong(id: Int?, atMs: Int) -> ByteBuffer {
        object {
            $0.member("type", "pong")
            if let id { $0.member("id", id) }
            $0.member("at", atMs)
        }
    }

    /// The answer to `watch` and `unwatch`: every name that was given, with "ok" or what is wrong with it.
    static func acknowledgement(id: Int?, jobs: [(name: String, problem: WatchProblem?)]) -> ByteBuffer {
        object {
            $0.member("type", "ack")
            if let id { $0.member("id", id) }
            $0.members("jobs") { members in
                for (name, problem) in jobs {
                    if let problem {
                        members.members(name) { $0.problem("error", problem) }
                    } else {
                        members.member(name, "ok")
                    }
                }
            }
        }
    }

    static func object(_ fill: (inout JSONObjectWriter) -> Void) -> ByteBuffer {
        var writer = JSONObjectWriter()
        fill(&writer)
        return writer.finished()
    }
}

/// Why a watch cannot be served: a code for programs and a sentence that says what to change.
struct WatchProblem: Error, Sendable, Hashable {
    let code: String
    let message: String

    init(_ code: String, _ message: String) {
        self.code = code
        self.message = message
    }

    static let jobNotFound = WatchProblem("job_not_found", "no such job; check the id, or submit the job first")
    static let tooManyJobs = WatchProblem("too_many_jobs", "this gateway watches as many jobs as it may; try again later")
}

/// Writes one JSON object (RFC 8259), member by member.
struct JSONObjectWriter {
    private var buffer: ByteBuffer
    private var isEmpty = true

    init() {
        buffer = ByteBuffer(string: "{")
    }

    mutating func member(_ name: String, _ value: String) {
        begin(name)
        string(value)
    }

    mutating func member(_ name: String, _ value: Int) {
        begin(name)
        buffer.writeString(String(value))
    }

    mutating func member(_ name: String, _ value: Bool) {
        begin(name)
        buffer.writeString(value ? "true" : "false")
    }

    mutating func members(_ name: String, _ fill: (inout JSONObjectWriter) -> Void) {
        begin(name)
        var inner = JSONObjectWriter()
        fill(&inner)
        buffer.writeImmutableBuffer(inner.finished())
    }

    mutating func problem(_ name: String, _ problem: WatchProblem) {
        members(name) {
            $0.member("code", problem.code)
            $0.member("message", problem.message)
        }
    }

    consuming func finished() -> ByteBuffer {
        buffer.writeStaticString("}")
        return buffer
    }

    private mutating func begin(_ name: String) {
        if !isEmpty { buffer.writeStaticString(",") }
        isEmpty = false
        string(name)
        buffer.writeStaticString(":")
    }

    private mutating func string(_ text: String) {
        buffer.writeStaticString("\"")
        // Nearly no text needs an escape: ids, codes and sentences of ours.
        if text.utf8.allSatisfy({ $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") && $0 != 0x7F }) {
            buffer.writeString(text)
        } else {
            escaped(text)
        }
        buffer.writeStaticString("\"")
    }

    private mutating func escaped(_ text: String) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): buffer.writeStaticString("\\\"")
            case UInt8(ascii: "\\"): buffer.writeStaticString("\\\\")
            case 0..<0x20, 0x7F: buffer.writeString("\\u00" + (byte < 16 ? "0" : "") + String(byte, radix: 16))
            default: buffer.writeInteger(byte)
            }
        }
    }
}
