import AsyncHTTPClient
import FoundationEssentials
import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore

#if canImport(Glibc)
    import Glibc
#endif

extension GatewayClient {
    /// A file that the gateway holds for a job to come.
    struct Upload: Decodable, Sendable {
        let upload: String
        let name: String
    }

    /// A stage as `GET /v1/pipelines` tells it.
    struct PipelineList: Decodable, Sendable {
        struct Entry: Decodable, Sendable {
            struct Stage: Decodable, Sendable { let name: String }
            let name: String
            let stages: [Stage]
        }
        let pipelines: [Entry]
    }

    /// Sends an input file; answers what the job's params refer to.
    func upload(_ path: String) async throws(CommandError) -> Upload {
        let file = try OpenFile.open(path)
        let answer = try await upload(
            file,
            to: "/v1/uploads?name=\(Self.percentEncoded(file.name))",
            contentType: Self.contentType(ofName: file.name)
        )
        guard answer.status == 201, let upload = try? JSONDecoder().decode(Upload.self, from: Data(answer.body.utf8)) else {
            throw refusal(answer, of: "upload of \(path)")
        }
        return upload
    }

    /// Submits a job; answers its id and the gateway's JSON.
    func submit(json: String) async throws(CommandError) -> (job: String, answer: String) {
        let answer = try await request(.POST, "/v1/jobs", json: json)
        guard (200..<300).contains(answer.status), let job = JobReference.parse(answer.body) else { throw refusal(answer, of: "submit") }
        return (job, answer.body)
    }

    /// The newest state of a job, or an error with code `.absent`.
    func snapshot(_ job: String, isFull: Bool = false) async throws(CommandError) -> String {
        let answer = try await request(.GET, "/v1/jobs/\(Self.percentEncoded(job))\(isFull ? "?full=1" : "")")
        guard answer.status == 200 else { throw refusal(answer, of: "job \(job)") }
        return answer.body
    }

    func cancel(_ job: String, reason: String?) async throws(CommandError) -> String {
        let json = reason.map { "{\"reason\":\(JSONText.quoted($0))}" } ?? "{}"
        let answer = try await request(.POST, "/v1/jobs/\(Self.percentEncoded(job))/cancel", json: json)
        guard (200..<300).contains(answer.status) else { throw refusal(answer, of: "cancel of \(job)") }
        return answer.body
    }

    /// Why a job is where it is, as `JobDiagnosis.json`.
    func why(_ job: String) async throws(CommandError) -> String {
        let answer = try await request(.GET, "/v1/jobs/\(Self.percentEncoded(job))/why")
        guard answer.status == 200 else { throw refusal(answer, of: "job \(job)") }
        return answer.body
    }

    /// Tries an ended job again as a new one; answers its id and the gateway's JSON. Repeating it gives the same new job.
    func retry(_ job: String, paramsJSON: String?) async throws(CommandError) -> (job: String, answer: String) {
        let json = paramsJSON.map { "{\"params\":\($0)}" } ?? "{}"
        let answer = try await request(.POST, "/v1/jobs/\(Self.percentEncoded(job))/retry", json: json)
        guard (200..<300).contains(answer.status), let successor = JobReference.parse(answer.body) else {
            throw refusal(answer, of: "retry of \(job)")
        }
        return (successor, answer.body)
    }

    func logs(_ job: String, limit: Int) async throws(CommandError) -> String {
        let answer = try await request(.GET, "/v1/jobs/\(Self.percentEncoded(job))/logs?limit=\(limit)")
        guard answer.status == 200 else { throw refusal(answer, of: "logs of \(job)") }
        return answer.body
    }

    /// Stage names by pipeline; empty when the gateway does not tell, because bars are drawn without them too.
    func stageNames() async -> [String: [String]] {
        guard let answer = try? await request(.GET, "/v1/pipelines"), answer.status == 200,
            let list = try? JSONDecoder().decode(PipelineList.self, from: Data(answer.body.utf8))
        else { return [:] }
        return Dictionary(list.pipelines.map { ($0.name, $0.stages.map(\.name)) }) { first, _ in first }
    }

    /// Downloads a result file into `directory`; the file appears under its name only when it is whole.
    func download(_ file: JobEvent.File, into directory: String) async throws(CommandError) -> String {
        guard !file.name.isEmpty, !file.name.contains("/"), file.name.first != ".", !file.name.utf8.contains(0) else {
            throw CommandError(.failed, "the gateway names a result file \(file.name.debugDescription); it was not saved")
        }
        // Only this gateway: an absolute URL in a result must not send us elsewhere.
        guard file.url.hasPrefix("/"), !file.url.hasPrefix("//") else {
            throw CommandError(.failed, "the result file \(file.name) has no address on this gateway; it was not saved")
        }
        let response = try await stream(file.url, headers: [])
        guard response.status == .ok else {
            throw CommandError(.failed, "result file \(file.name): HTTP \(response.status.code) from the gateway")
        }
        let path = "\(directory)/\(file.name)"
        let part = "\(path).part-\(getpid())"
        do {
            try await write(response.body, to: part)
        } catch {
            unlink(part)
            throw (error as? CommandError) ?? CommandError(.linkLost, "result file \(file.name): the download broke off (\(error))")
        }
        guard rename(part, path) == 0 else {
            let reason = SystemText.error(errno)
            unlink(part)
            throw CommandError(.failed, "\(path): \(reason)")
        }
        return path
    }

    private func write(_ body: some AsyncSequence<ByteBuffer, any Error>, to path: String) async throws {
        let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw CommandError(.failed, "\(path): \(SystemText.error(errno))") }
        defer { close(descriptor) }
        for try await var buffer in body {
            while buffer.readableBytes > 0 {
                let count = buffer.withUnsafeReadableBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
                guard count > 0 else { throw CommandError(.failed, "\(path): \(SystemText.error(errno))") }
                buffer.moveReaderIndex(forwardBy: count)
            }
        }
    }

    /// RFC 3986: everything but the unreserved characters.
    static func percentEncoded(_ text: String) -> String {
        var out = ""
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: out.unicodeScalars.append(Unicode.Scalar(byte))
            default: out += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return out
    }

    static func contentType(ofName name: String) -> String {
        switch name.split(separator: ".").last.map({ $0.lowercased() }) {
        case "jpg", "jpeg": "image/jpeg"
        case "png": "image/png"
        case "webp": "image/webp"
        case "gif": "image/gif"
        case "json": "application/json"
        case "txt": "text/plain"
        case "glb": "model/gltf-binary"
        default: "application/octet-stream"
        }
    }
}

/// The `job` of any answer that names one.
struct JobReference: Decodable {
    let job: String

    static func parse(_ json: String) -> String? {
        try? JSONDecoder().decode(JobReference.self, from: Data(json.utf8)).job
    }
}
