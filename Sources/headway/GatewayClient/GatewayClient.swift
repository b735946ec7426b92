import AsyncHTTPClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOPosix

/// What the command line asks of a gateway, over HTTP.
struct GatewayClient: Sendable {
    let baseURL: String
    private let http: HTTPClient

    /// An answer that was read whole.
    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: String
    }

    /// What a gateway says when it refuses.
    private struct Refusal: Decodable {
        struct Inner: Decodable {
            let code: String
            let message: String?
        }
        let error: Inner
    }

    init(baseURL: String, http: HTTPClient) {
        self.baseURL = baseURL.last == "/" ? String(baseURL.dropLast()) : baseURL
        self.http = http
    }

    /// Runs `body` with a client and closes its connections afterwards.
    static func with<Value>(baseURL: String, _ body: (GatewayClient) async throws -> Value) async throws -> Value {
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = .seconds(Limits.connectSeconds)
        configuration.timeout.read = .seconds(Limits.transferIdleSeconds)
        configuration.timeout.write = .seconds(Limits.transferIdleSeconds)
        // Every watched job holds one connection open.
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = Limits.watchedJobs + 8
        // Retrying is ours: with a bound, with jitter, and told to the user.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.httpVersion = .http1Only
        let http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        let value: Value
        do {
            value = try await body(GatewayClient(baseURL: baseURL, http: http))
        } catch {
            try? await http.shutdown()
            throw error
        }
        try? await http.shutdown()
        return value
    }

    // MARK: Requests

    /// Sends a request and reads its answer whole. Throws `.linkLost` when there is no answer.
    func request(
        _ method: HTTPMethod,
        _ path: String,
        json: String? = nil,
        headers: [(String, String)] = [],
        timeout: Duration? = nil
    ) async throws(CommandError) -> Answer {
        var request = HTTPClientRequest(url: baseURL + path)
        request.method = method
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let json {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(ByteBuffer(string: json))
        }
        return try await answer(to: request, timeout: timeout ?? .seconds(Limits.requestSeconds))
    }

    /// Sends a file as the body of a POST, in pieces, without holding it in memory.
    func upload(_ file: OpenFile, to path: String, contentType: String) async throws(CommandError) -> Answer {
        var request = HTTPClientRequest(url: baseURL + path)
        request.method = .POST
        request.headers.add(name: "content-type", value: contentType)
        request.body = .stream(file.chunks, length: .known(file.bytes))
        return try await answer(to: request, timeout: .seconds(86_400))
    }

    /// Opens a stream; the caller reads `body` as it comes.
    func stream(_ path: String, headers: [(String, String)]) async throws(CommandError) -> HTTPClientResponse {
        var request = HTTPClientRequest(url: baseURL + path)
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        do {
            return try await http.execute(request, deadline: .distantFuture)
        } catch {
            throw unreachable(error)
        }
    }

    private func answer(to request: HTTPClientRequest, timeout: Duration) async throws(CommandError) -> Answer {
        do {
            let response = try await http.execute(request, timeout: .nanoseconds(timeout.nanoseconds))
            let body = try await response.body.collect(upTo: Limits.answerBytes)
            return Answer(status: Int(response.status.code), headers: response.headers, body: String(buffer: body))
        } catch is NIOTooManyBytesError {
            throw CommandError(.failed, "the gateway at \(baseURL) answered with more than \(Limits.answerBytes) bytes")
        } catch {
            throw unreachable(error)
        }
    }

    func unreachable(_ error: any Error) -> CommandError {
        if let known = error as? CommandError { return known }
        if let http = error as? HTTPClientError, http == .invalidURL || http == .emptyHost || http == .emptyScheme {
            return .usage("\(baseURL) is not a gateway's address; --gateway (HEADWAY_GATEWAY_URL) must be http://HOST[:PORT]")
        }
        return CommandError(
            .linkLost,
            "no answer from the gateway at \(baseURL) (\(Self.reason(error))); is it running, is --gateway (HEADWAY_GATEWAY_URL) right?"
        )
    }

    /// The operating system's own words where there are any.
    private static func reason(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError: error.shortDescription
        case let error as NIOConnectionError: error.connectionErrors.first.map { reason($0.error) } ?? "cannot resolve the host name"
        case let error as IOError: SystemText.error(error.errnoCode)
        default: "\(error)"
        }
    }

    /// An answer that is not 2xx, as an error whose code fits its status.
    func refusal(_ answer: Answer, of what: String) -> CommandError {
        let inner = try? JSONDecoder().decode(Refusal.self, from: Data(answer.body.utf8)).error
        let text = inner.map { "\($0.message ?? $0.code) (\($0.code))" } ?? "HTTP \(answer.status)"
        let code: CommandError.Code =
            switch answer.status {
            case 404 where inner?.code == "job_not_found", 410: .absent
            case 404 where inner == nil: .linkLost
            case 400..<500: .usage
            default: .linkLost
            }
        return CommandError(code, "\(what): \(text)")
    }
}

extension Duration {
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds.multipliedReportingOverflow(by: 1_000_000_000).overflow
            ? .max : seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}
