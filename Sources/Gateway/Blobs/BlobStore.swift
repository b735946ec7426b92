import NIOCore
import ProgressCore

/// A file's name as a client may choose it: one path segment and nothing else.
struct BlobName: Sendable, Hashable {
    let text: String

    /// Nil for what is empty, too long, a path, hidden (`.` and `..` too), or holds characters that do not show: controls, line
    /// separators, and the marks that turn the direction of writing, with which `gpj.exe` looks like `exe.jpg`.
    init?(_ text: String) {
        guard (1...Self.maximumBytes).contains(text.utf8.count), text.utf8.first != UInt8(ascii: "."),
            text.unicodeScalars.allSatisfy(Self.isAllowed)
        else { return nil }
        self.text = text
    }

    private static func isAllowed(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7f...0x9f, 0x2f, 0x5c: false
        case 0x61c, 0x200b...0x200f, 0x2028...0x202e, 0x2060...0x206f, 0xfeff, 0xfff9...0xfffb: false
        default: true
        }
    }

    /// The longest name of usual file systems.
    static let maximumBytes = 255

    var contentType: String { ContentType.ofName(text) }
}

/// Where a blob stands.
enum BlobPlace: Sendable, Hashable {
    /// An input, under the secret id that its upload was given.
    case upload(id: String, name: BlobName)
    /// An output of a job.
    case jobFile(JobID, BlobName)
}

struct BlobInfo: Sendable, Hashable {
    let name: String
    let bytes: Int
    let contentType: String
}

/// Files that go into and come out of jobs. A directory today; a shared volume or an object store later.
protocol BlobStore: Sendable {
    /// Makes sure that it can be used; throws what to change.
    func prepare() async throws(GatewayError)

    /// Takes in a whole body or nothing.
    /// - Parameters:
    ///   - limit: most bytes.
    ///   - inspect: looks at the first bytes (at most 16), and may refuse.
    ///   - commit: asked when all bytes are there; what it throws leaves nothing behind.
    func write(
        _ place: BlobPlace,
        body: RequestBody,
        limit: Int,
        inspect: @Sendable (ByteBuffer) throws(GatewayError) -> Void,
        commit: @Sendable () async throws -> Void
    ) async throws -> BlobInfo

    /// What an upload is, or nil.
    func upload(_ id: String) async throws -> BlobInfo?
    func openUpload(_ id: String) async throws -> (file: BlobFile, info: BlobInfo)?
    func openJobFile(_ job: JobID, _ name: BlobName) async throws -> (file: BlobFile, info: BlobInfo)?

    /// Removes what is older than its time. Returns how many entries went.
    func sweep(nowMs: Int) async -> Int
}

/// Types by the end of a name, and by the first bytes.
enum ContentType {
    static func ofName(_ name: String) -> String {
        let end = name.split(separator: ".").last.map { $0.lowercased() } ?? ""
        return byExtension[end] ?? "application/octet-stream"
    }

    private static let byExtension = [
        "glb": "model/gltf-binary", "gltf": "model/gltf+json", "obj": "model/obj", "stl": "model/stl", "ply": "application/octet-stream",
        "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp",
        "json": "application/json", "txt": "text/plain; charset=utf-8", "mp4": "video/mp4", "webm": "video/webm", "zip": "application/zip",
    ]

    /// True when `head`, the first bytes of a file, begins like an image of a known kind.
    static func isImage(_ head: ByteBuffer) -> Bool {
        let bytes = Array(head.readableBytesView.prefix(16))
        func at(_ offset: Int, _ text: String) -> Bool { bytes.dropFirst(offset).starts(with: Array(text.utf8)) }
        return bytes.starts(with: [0x89, 0x50, 0x4e, 0x47]) || bytes.starts(with: [0xff, 0xd8, 0xff]) || at(0, "GIF8") || at(0, "BM")
            || (at(0, "RIFF") && at(8, "WEBP")) || bytes.starts(with: [0x49, 0x49, 0x2a, 0]) || bytes.starts(with: [0x4d, 0x4d, 0, 0x2a])
            || ["avif", "avis", "heic", "heix", "mif1"].contains { at(4, "ftyp" + $0) }
    }
}
