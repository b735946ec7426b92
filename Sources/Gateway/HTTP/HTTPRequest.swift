import NIOCore
import NIOHTTP1
import ProgressCore

/// One request as a route sees it: checked, decoded, with its whole body (unless the route streams it).
struct HTTPRequest: Sendable {
    let id: String
    let head: HTTPRequestHead
    let target: RequestTarget
    let principal: Principal
    /// The allowed page of another origin that sent it: it may read the answer.
    let foreignOrigin: String?
    /// Values of the pattern's parameters, by name.
    var parameters: [String: String] = [:]
    var body = ByteBuffer()

    var headers: HTTPHeaders { head.headers }

    /// The first query parameter of that name.
    func query(_ name: String) -> String? { target.query.first { $0.name == name }?.value }

    func queries(_ name: String) -> [String] { target.query.filter { $0.name == name }.map(\.value) }

    /// The path's job. Throws `.badRequest` for what can be no id, so that a typing error is not taken for an expired job.
    func job() throws(GatewayError) -> JobID { try Self.job(parameters["job"] ?? "") }

    static func job(_ text: String) throws(GatewayError) -> JobID {
        guard let job = JobID(text) else {
            throw GatewayError(
                .badRequest,
                "a job's id has 1–\(JobID.maximumLength) characters of A-Z a-z 0-9 . _ : - (and ~ before a child's number)",
                field: "job"
            )
        }
        return job
    }

    /// A query parameter that is an integer within `range`; nil when it is absent.
    func integer(_ name: String, in range: ClosedRange<Int>) throws(GatewayError) -> Int? {
        guard let text = query(name) else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw GatewayError(.badRequest, "\(name): an integer \(range.lowerBound)…\(range.upperBound) is needed", field: name)
        }
        return value
    }

    /// A body that a page of another site could send without asking (a form) is not taken for JSON.
    func requireJSON() throws(GatewayError) {
        let type = (headers.first(name: "content-type") ?? "").lowercased()
        guard type == "application/json" || type.hasPrefix("application/json;") else {
            throw GatewayError(.unsupportedMediaType, "Content-Type: application/json is needed")
        }
    }

    /// W3C Trace Context, version 00; anything else is not passed on.
    var traceparent: String? {
        guard let text = headers.first(name: "traceparent") else { return nil }
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.map(\.utf8.count) == [2, 32, 16, 2],
            text.utf8.allSatisfy({ $0 == UInt8(ascii: "-") || JSONChecker.hexDigit($0) != nil })
        else { return nil }
        return text
    }

    /// A query parameter that is `1` or `true`.
    func flag(_ name: String) -> Bool { query(name) == "1" || query(name) == "true" }
}
