public import NIOCore
public import ProgressCore
import RedisLink

/// What readers see: plain commands, nothing changes.
extension JobStore {
    /// The whole hash as the dashboards see it, or nil.
    public func snapshot(_ job: JobID) async throws(StoreError) -> JobSnapshot? {
        let flat = try await command(["HGETALL", .string(keys.job(job))]).array ?? []
        guard !flat.isEmpty else { return nil }
        var fields: [String: String] = [:]
        for index in stride(from: 0, to: flat.count - 1, by: 2) {
            fields[flat[index].string ?? ""] = flat[index + 1].string ?? ""
        }
        return JobSnapshot(job: job, fields: fields)
    }

    /// Only the named fields of the hash, `owner` and `seq` among them if asked for; nil for an absent job. A job's `params` and
    /// `result` may be large, and most readers want neither.
    public func snapshot(_ job: JobID, fields names: [String]) async throws(StoreError) -> JobSnapshot? {
        let reply = try await command(["HMGET", .string(keys.job(job)), "seq"] + names.map { .string($0) })
        guard let values = reply.array, values.count == names.count + 1, let seq = values[0].string else { return nil }
        var fields = ["seq": seq]
        for (name, value) in zip(names, values.dropFirst()) {
            if let text = value.string { fields[name] = text }
        }
        return JobSnapshot(job: job, fields: fields)
    }

    /// seq, phase, owner and last event of many jobs in one pipelined read; nil for absent ones.
    public func heads(_ jobs: [JobID]) async throws(StoreError) -> [JobHead?] {
        let replies = try await pipeline(jobs.map { ["HMGET", .string(keys.job($0)), "seq", "phase", "owner", "body"] })
        var heads: [JobHead?] = []
        heads.reserveCapacity(jobs.count)
        for (job, reply) in zip(jobs, replies) {
            if case .error(let message) = reply { throw StoreError(.corrupt, message) }
            guard let values = reply.array, values.count == 4, let seq = values[0].int,
                let phase = values[1].string.flatMap(Phase.init(rawValue:)), let body = values[3].buffer
            else {
                heads.append(nil)
                continue
            }
            heads.append(JobHead(job: job, seq: seq, phase: phase, owner: Owner(values[2].string ?? ""), body: body))
        }
        return heads
    }

    /// Only `seq` of many jobs, 0 for an absent one: what a reconciler reads first.
    public func sequences(_ jobs: [JobID]) async throws(StoreError) -> [Int] {
        try await pipeline(jobs.map { ["HGET", .string(keys.job($0)), "seq"] }).map { $0.int ?? 0 }
    }

    /// Milestones with seq > `after`, oldest first.
    public func milestones(_ job: JobID, after: Int) async throws(StoreError) -> [Milestone] {
        let replies = try await pipeline([
            ["HGET", .string(keys.job(job)), "body"], ["LRANGE", .string(keys.milestones(job)), "0", "-1"],
        ])
        if case .error(let message)? = replies.last { throw StoreError(.corrupt, message) }
        var bodies = replies[1].array ?? []
        // A job that never left the line has its one milestone, the QUEUED event, in its hash alone. The hash was read first: a job
        // that is claimed between the two reads has its list.
        if bodies.isEmpty { bodies = [replies[0]] }
        return bodies.compactMap { value in
            guard let body = value.buffer, let head = EventHead(body: body), head.isMilestone, head.seq > after else { return nil }
            return Milestone(seq: head.seq, phase: head.phase, body: body)
        }
    }

    /// The last `limit` log lines, oldest first.
    public func logs(_ job: JobID, limit: Int) async throws(StoreError) -> [LogLine] {
        let entries = try await command(["XREVRANGE", .string(keys.log(job)), "+", "-", "COUNT", .int(limit)]).array ?? []
        return entries.reversed().compactMap { entry in
            guard let parts = entry.array, parts.count == 2, let id = parts[0].string, let fields = parts[1].array, fields.count >= 4 else {
                return nil
            }
            let atMs = Int(id.prefix { $0 != "-" }) ?? 0
            return LogLine(atMs: atMs, stream: fields[1].string ?? "", text: fields[3].string ?? "")
        }
    }

    /// The newest preview image.
    public func preview(_ job: JobID) async throws(StoreError) -> (image: ByteBuffer, contentType: String)? {
        guard let image = try await command(["GET", .string(keys.preview(job))]).buffer else { return nil }
        return (image, ImageType(of: image)?.contentType ?? "application/octet-stream")
    }

    /// Jobs ahead of this one in `queue` (0: it is next); nil when it is not waiting there.
    public func position(_ job: JobID, queue: String) async throws(StoreError) -> Int? {
        try await command(["ZRANK", .string(keys.queue(queue, .ready, partition: keys.partition(of: job))), .string(job.text)]).int
    }
}

/// The first members of an event's JSON, which `event.lua` writes in a fixed order: job, seq, type, phase.
struct EventHead {
    let seq: Int
    let phase: Phase
    /// Not a mere move of the bar.
    let isMilestone: Bool

    init?(body: ByteBuffer) {
        // 128 bytes of id and some 100 of fixed text: a longer head is not ours.
        guard let text = body.getString(at: body.readerIndex, length: min(300, body.readableBytes)),
            let seq = Self.member("\",\"seq\":", in: text, until: ","), let number = Int(seq),
            let phase = Self.member("\"phase\":\"", in: text, until: "\"").flatMap(Phase.init(rawValue:))
        else { return nil }
        self.seq = number
        self.phase = phase
        self.isMilestone = Self.member("\"type\":\"", in: text, until: "\"") != "progress"
    }

    private static func member(_ name: String, in text: String, until end: Character) -> String? {
        let bytes = Array(text.utf8)
        let pattern = Array(name.utf8)
        guard bytes.count > pattern.count else { return nil }
        for start in 0...(bytes.count - pattern.count) where bytes[start..<start + pattern.count].elementsEqual(pattern) {
            let rest = bytes[(start + pattern.count)...]
            guard let stop = rest.firstIndex(of: end.asciiValue ?? 0) else { return nil }
            return String(decoding: rest[..<stop], as: UTF8.self)
        }
        return nil
    }
}
