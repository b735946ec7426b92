import AsyncHTTPClient
import Glibc
import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import Telemetry

/// Fetches inputs from a gateway and delivers outputs to it, over HTTP, so that a GPU machine shares no disk with anybody.
struct GatewayFiles: Sendable {
    let client: HTTPClient
    /// Without a slash at its end.
    let base: String
    let metrics: WorkerMetrics
    let environment: WorkerEnvironment

    /// What an answer means for the next try.
    private enum Verdict {
        case done
        case tryAgain(String)
        case giveUp(String)
    }

    // MARK: Inputs

    /// Puts the upload's bytes into `directory` under its name. Nothing half-written remains: the name appears when it is whole.
    func fetch(_ input: JobInput, into directory: String) async throws {
        let url = "\(base)/v1/uploads/\(FileName.percentEncoded(input.upload))"
        let partial = "\(directory)/.\(input.upload).part"
        defer { unlink(partial) }
        let attempt = { () async throws -> Verdict in
            let response = try await client.execute(
                HTTPClientRequest(url: url),
                timeout: .seconds(WorkerLimits.transferTime.components.seconds)
            )
            guard response.status == .ok else { return try await verdict(response) }
            try await save(response.body, to: partial, name: input.name)
            return .done
        }
        try await repeated(attempt) { .inputUnavailable(input.name, $0, isRecoverable: $1) }
        guard rename(partial, "\(directory)/\(input.name)") == 0 else { throw BackendError.system("an input was not kept", errno: errno) }
    }

    private func save(_ body: HTTPClientResponse.Body, to path: String, name: String) async throws {
        let number = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard number >= 0 else { throw BackendError.system("an input was not kept", errno: errno) }
        let file = Descriptor(number)
        var total = 0
        for try await chunk in body {
            total += chunk.readableBytes
            guard total <= WorkerLimits.fileBytes else {
                throw BackendError.inputUnavailable(name, "it has more than \(WorkerLimits.fileBytes) bytes", isRecoverable: false)
            }
            try chunk.withUnsafeReadableBytes { bytes in
                var done = 0
                while done < bytes.count {
                    let count = write(file.number, bytes.baseAddress.map { $0 + done }, bytes.count - done)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { throw BackendError.system("an input was not kept", errno: errno) }
                    done += count
                }
            }
            metrics.transferredBytes.increment(by: chunk.readableBytes)
        }
    }

    // MARK: Outputs

    /// Path of an output of `job` on every gateway.
    static func path(of file: OutputFile, job: JobID) -> String {
        "/v1/jobs/\(FileName.percentEncoded(job.text))/files/\(FileName.percentEncoded(file.name))"
    }

    func deliver(_ file: OutputFile, lease: Lease) async throws {
        let attempt = { () async throws -> Verdict in
            var request = HTTPClientRequest(url: base + Self.path(of: file, job: lease.job))
            request.method = .PUT
            request.headers.add(name: "Content-Type", value: FileName.contentType(file.name))
            request.headers.add(name: "Headway-Fence", value: lease.fence)
            request.body = .stream(try FileChunks(file), length: .known(Int64(file.bytes)))
            let response = try await client.execute(request, timeout: .seconds(WorkerLimits.transferTime.components.seconds))
            guard (200..<300).contains(response.status.code) else { return try await verdict(response) }
            metrics.transferredBytes.increment(by: file.bytes)
            return .done
        }
        try await repeated(attempt) { .outputRejected("\(file.name): \($0)", isRecoverable: $1) }
    }

    // MARK: Both

    private func verdict(_ response: HTTPClientResponse) async throws -> Verdict {
        let status = Int(response.status.code)
        // The connection is used again only when the body was read; a gateway's error is short.
        _ = try? await response.body.collect(upTo: WorkerLimits.replyBytes)
        let text = "the gateway answered \(status)"
        return status >= 500 || status == 429 || status == 408 ? .tryAgain(text) : .giveUp(text)
    }

    private func repeated(
        _ attempt: () async throws -> Verdict,
        failure: (_ reason: String, _ isRecoverable: Bool) -> BackendError
    ) async throws {
        var backoff = Backoff()
        var reason = ""
        for number in 1...WorkerLimits.transferTries {
            do {
                switch try await attempt() {
                case .done: return
                case .tryAgain(let text): reason = text
                case .giveUp(let text): throw failure(text, false)
                }
            } catch let error as BackendError {
                throw error
            } catch {
                try Task.checkCancellation()
                reason = "\(base) cannot be reached (\(type(of: error)))"
            }
            if number < WorkerLimits.transferTries { try await Task.sleep(for: backoff.next(random: environment.random())) }
        }
        throw failure(reason, true)
    }
}

/// A file as chunks for a request, read when the connection wants more.
private struct FileChunks: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    let path: String
    let bytes: Int

    init(_ file: OutputFile) throws {
        path = file.path
        bytes = file.bytes
        guard access(path, R_OK) == 0 else { throw BackendError.outputRejected("\(file.name) cannot be read", isRecoverable: false) }
    }

    func makeAsyncIterator() -> Iterator { Iterator(path: path, left: bytes) }

    struct Iterator: AsyncIteratorProtocol {
        let path: String
        var left: Int
        private var file: Descriptor?

        init(path: String, left: Int) {
            self.path = path
            self.left = left
        }

        mutating func next() async throws -> ByteBuffer? {
            if file == nil { file = Descriptor(open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) }
            guard left > 0, let file, file.isOpen else { return nil }
            var buffer = ByteBuffer()
            // A generator's descendant may still be writing: exactly as many bytes are sent as were announced.
            let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: 64 * 1024) { space in
                Swift.max(0, read(file.number, space.baseAddress, Swift.min(space.count, left)))
            }
            guard count > 0 else { throw BackendError.outputRejected("a file changed while it was sent", isRecoverable: true) }
            left -= count
            return buffer
        }
    }
}
