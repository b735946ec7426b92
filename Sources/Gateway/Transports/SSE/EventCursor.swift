import ProgressCore

/// The cursor of an event stream: what `Last-Event-ID` says and `id:` carries.
///
/// One job: its seq, or `end` once its last event was delivered. Several jobs: one of these per job, in the order of the
/// request, joined by commas (`41,end,0`; 0: nothing yet); after the end of all of them, plain `end`.
enum EventCursor {
    /// Puts a client's cursor on its jobs. Nil when it does not fit them: a wrong count, or something that is no cursor.
    static func requests(for jobs: [JobID], lastEventID: String?) -> [WatchRequest]? {
        guard let text = lastEventID, !text.isEmpty else { return jobs.map { WatchRequest(job: $0) } }
        if text == EventStreamEncoder.endCursor { return jobs.map { WatchRequest(job: $0, isEnd: true) } }
        let parts = text.split(separator: ",", maxSplits: jobs.count, omittingEmptySubsequences: false)
        guard parts.count == jobs.count else { return nil }
        var requests: [WatchRequest] = []
        for (job, part) in zip(jobs, parts) {
            if part == EventStreamEncoder.endCursor {
                requests.append(WatchRequest(job: job, isEnd: true))
            } else if part.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let seq = Int(part) {
                requests.append(WatchRequest(job: job, since: seq == 0 ? nil : seq))
            } else {
                return nil
            }
        }
        return requests
    }

    /// - Parameter seqs: Seq of the newest delivered event per job; nil: its end was delivered.
    static func text(_ seqs: [Int?]) -> String {
        if seqs.allSatisfy({ $0 == nil }) { return EventStreamEncoder.endCursor }
        return seqs.map { $0.map(String.init) ?? EventStreamEncoder.endCursor }.joined(separator: ",")
    }
}
