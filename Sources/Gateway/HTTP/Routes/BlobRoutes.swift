import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Synchronization
import Telemetry

/// Inputs up, outputs up and down.
struct BlobRoutes: Sendable {
    let context: RouteContext
    private let receiving = ReceivingCount()
    private let uploaded: Counter

    init(context: RouteContext) {
        self.context = context
        uploaded = context.registry.counter(.uploadedBytes)
    }

    var routes: [Route] {
        let registry = context.registry
        return [
            Route(.POST, "/v1/uploads", registry: registry, .streamed(upload)),
            Route(.GET, "/v1/uploads/{upload}", registry: registry, .task(bodyLimit: 0, download)),
            Route(.PUT, "/v1/jobs/{job}/files/{name}", registry: registry, .streamed(putFile)),
            Route(.GET, "/v1/jobs/{job}/files/{name}", registry: registry, .task(bodyLimit: 0, file)),
        ]
    }

    // MARK: Up

    private func upload(_ request: HTTPRequest, _ body: RequestBody) async throws -> HTTPResponse {
        let name = try Self.name(request.query("name") ?? "upload.bin", field: "name")
        let claimed = (request.headers.first(name: "content-type") ?? "").lowercased()
        let mustBeImage = claimed.hasPrefix("image/") || name.contentType.hasPrefix("image/")
        try Self.checkLength(request, limit: context.limits.uploadBytes)
        let id = context.environment.makeSecretID()
        let info = try await receive(.upload(id: id, name: name), body, limit: context.limits.uploadBytes) { (head) throws(GatewayError) in
            if head.readableBytes == 0 { throw GatewayError(.invalidValue, "the file is empty") }
            if mustBeImage, !ContentType.isImage(head) {
                throw GatewayError(.notAnImage, "'\(name.text)' does not begin like an image (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF)")
            }
        } commit: {
        }
        var response = HTTPResponse.json(
            "{\"upload\":\"\(id)\",\"name\":\(JSONText.quoted(info.name)),\"bytes\":\(info.bytes),"
                + "\"content_type\":\(JSONText.quoted(info.contentType))}",
            status: 201
        )
        response.add("location", "/v1/uploads/\(id)")
        return response
    }

    /// A worker delivers an output; its fence proves that the job is still its own.
    private func putFile(_ request: HTTPRequest, _ body: RequestBody) async throws -> HTTPResponse {
        let job = try request.job()
        let name = try Self.name(request.parameters["name"] ?? "", field: "name")
        try Self.checkLength(request, limit: context.limits.jobFileBytes)
        let store = context.store
        guard let fence = request.headers.first(name: "headway-fence"), !fence.isEmpty else {
            throw GatewayError(.notAllowed, "Headway-Fence: only the worker that holds the job may deliver its files")
        }
        @Sendable func requireLease() async throws {
            guard let snapshot = try await store.snapshot(job) else { throw JobRoutes.notFound(job) }
            guard snapshot.fields["fence"] == fence else {
                throw GatewayError(.leaseLost, "the job \(job) is not this worker's any more: stop its work")
            }
        }
        try await requireLease()
        // Asked again when all bytes are there: the lease may be lost on the way, and the next owner's file must not be overwritten.
        let info = try await receive(
            .jobFile(job, name),
            body,
            limit: context.limits.jobFileBytes,
            inspect: { (_) throws(GatewayError) in },
            commit: requireLease
        )
        let url = Self.url(job, info.name)
        return .json(
            "{\"name\":\(JSONText.quoted(info.name)),\"bytes\":\(info.bytes),\"content_type\":\(JSONText.quoted(info.contentType)),"
                + "\"url\":\(JSONText.quoted(url))}",
            status: 201
        )
    }

    private func receive(
        _ place: BlobPlace,
        _ body: RequestBody,
        limit: Int,
        inspect: @Sendable (ByteBuffer) throws(GatewayError) -> Void,
        commit: @Sendable () async throws -> Void
    ) async throws -> BlobInfo {
        guard receiving.enter(limit: context.limits.concurrentUploads) else {
            throw GatewayError(.tooManyRequests, "too many files are being received: try again", retryAfterSeconds: 2)
        }
        defer { receiving.leave() }
        let info = try await context.blobs.write(place, body: body, limit: limit, inspect: inspect, commit: commit)
        uploaded.increment(by: info.bytes)
        return info
    }

    // MARK: Down

    private func download(_ request: HTTPRequest) async throws -> HTTPResponse {
        guard let (file, info) = try await context.blobs.openUpload(request.parameters["upload"] ?? "") else {
            throw GatewayError(.uploadNotFound, "there is no such upload, or it has expired")
        }
        return try answer(file, info, request)
    }

    private func file(_ request: HTTPRequest) async throws -> HTTPResponse {
        let job = try request.job()
        let name = try Self.name(request.parameters["name"] ?? "", field: "name")
        guard let head = try await context.store.heads([job]).first ?? nil, request.principal.mayView(head.owner) else {
            throw JobRoutes.notFound(job)
        }
        guard let (file, info) = try await context.blobs.openJobFile(job, name) else {
            throw GatewayError(.fileNotFound, "the job \(job) has no file '\(name.text)'")
        }
        return try answer(file, info, request)
    }

    private func answer(_ file: BlobFile, _ info: BlobInfo, _ request: HTTPRequest) throws(GatewayError) -> HTTPResponse {
        // Attachment and nosniff: what a generator wrote is never run as a page of ours.
        var headers = [
            ("content-type", info.contentType),
            ("content-disposition", "attachment; filename*=UTF-8''\(PercentEncoding.encode(info.name))"),
            ("accept-ranges", "bytes"), ("cache-control", "private, no-cache"),
        ]
        guard let text = request.headers.first(name: "range"), let range = try Self.range(text, of: info.bytes) else {
            return HTTPResponse(status: 200, headers: headers, body: .file(file, range: 0..<info.bytes))
        }
        headers.append(("content-range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(info.bytes)"))
        return HTTPResponse(status: 206, headers: headers, body: .file(file, range: range))
    }

    /// One range of bytes (RFC 9110 §14.1.2); nil for what we need not follow: several ranges, another unit, nonsense.
    static func range(_ text: String, of count: Int) throws(GatewayError) -> Range<Int>? {
        guard text.hasPrefix("bytes="), !text.contains(",") else { return nil }
        let parts = text.dropFirst("bytes=".count).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        let (first, last) = (Int(parts[0]), Int(parts[1]))
        guard first != nil || parts[0].isEmpty, last != nil || parts[1].isEmpty else { return nil }
        // Both ends are brought within the file before a Range is made of them: a Range that runs backwards ends the process.
        let range: (from: Int, to: Int)
        switch (first, last) {
        case (let first?, let last?) where first <= last: range = (first, last < count ? last + 1 : count)
        case (let first?, nil): range = (first, count)
        case (nil, let suffix?): range = (max(0, count - suffix), count)
        default: return nil
        }
        guard range.from < range.to else {
            throw GatewayError(.rangeNotSatisfiable, "Range: the file has \(count) bytes", field: "Range")
        }
        return range.from..<range.to
    }

    // MARK: Names

    private static func name(_ text: String, field: String) throws(GatewayError) -> BlobName {
        guard let name = BlobName(text) else {
            throw GatewayError(
                .invalidName,
                "name: 1–\(BlobName.maximumBytes) bytes are needed, no path, no control characters, no dot in front",
                field: field
            )
        }
        return name
    }

    private static func url(_ job: JobID, _ name: String) -> String {
        "/v1/jobs/\(PercentEncoding.encode(job.text))/files/\(PercentEncoding.encode(name))"
    }

    /// What announces itself as too long is refused before a byte of it is taken.
    private static func checkLength(_ request: HTTPRequest, limit: Int) throws(GatewayError) {
        guard let length = request.headers.first(name: "content-length").flatMap({ Int($0) }) else { return }
        guard length <= limit else { throw GatewayError(.bodyTooLarge, "the file has more than \(limit) bytes") }
    }
}

/// How many files are being received.
private final class ReceivingCount: Sendable {
    private let count = Atomic<Int>(0)

    func enter(limit: Int) -> Bool {
        guard count.wrappingAdd(1, ordering: .relaxed).newValue <= limit else {
            leave()
            return false
        }
        return true
    }

    func leave() { count.wrappingSubtract(1, ordering: .relaxed) }
}
