import CWebFiles
import JobStore
import NIOCore
import NIOHTTP1
import Telemetry

/// The page and what belongs to it, embedded in the binary.
struct WebFiles: Sendable {
    /// The page loads only from here, talks only to here, and cannot be framed.
    private static let policy =
        "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; "
        + "form-action 'self'; frame-ancestors 'none'"

    let registry: MetricsRegistry

    var routes: [Route] {
        var routes: [Route] = []
        for index in 0..<headway_web_file_count {
            let file = Self.file(Int(index))
            routes.append(Route(.GET, file.path, registry: registry, .immediate { Self.answer(file, $0) }))
        }
        return routes
    }

    private struct File: Sendable {
        let path: String
        let contentType: String
        let bytes: ByteBuffer
        let tag: String
    }

    private static func file(_ index: Int) -> File {
        let entry = headway_web_file_at(index).pointee
        let bytes = ByteBuffer(bytes: UnsafeBufferPointer(start: entry.bytes, count: entry.count))
        return File(
            path: String(cString: entry.path),
            contentType: String(cString: entry.content_type),
            bytes: bytes,
            tag: "\"" + Digest.sha256(String(buffer: bytes)).prefix(24) + "\""
        )
    }

    private static func answer(_ file: File, _ request: HTTPRequest) -> HTTPResponse {
        let headers = [("etag", file.tag), ("cache-control", "no-cache"), ("content-security-policy", policy)]
        if request.headers[canonicalForm: "if-none-match"].contains(where: { $0 == file.tag }) {
            return HTTPResponse(status: 304, headers: headers)
        }
        return HTTPResponse(status: 200, headers: headers + [("content-type", file.contentType)], body: .bytes(file.bytes))
    }
}
