/// Why the gateway refuses, in words that name what to change.
///
/// Over HTTP it is `{"error":{"code","message","field"?,"request_id"}}` with the status of its code.
public struct GatewayError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The raw values are the wire spelling; clients act on them.
    public enum Code: String, Sendable, CaseIterable {
        // The request itself
        case badRequest = "bad_request"
        case malformedJSON = "malformed_json"
        case unknownField = "unknown_field"
        case missingField = "missing_field"
        case wrongType = "wrong_type"
        case invalidValue = "invalid_value"
        case invalidName = "invalid_name"
        case unsupportedMediaType = "unsupported_media_type"
        case notAnImage = "not_an_image"
        case bodyTooLarge = "body_too_large"
        case uriTooLong = "uri_too_long"
        case headersTooLarge = "headers_too_large"
        case requestTimeout = "request_timeout"
        case rangeNotSatisfiable = "range_not_satisfiable"
        case upgradeRequired = "upgrade_required"
        case originRefused = "origin_refused"
        case hostRefused = "host_refused"
        case methodNotAllowed = "method_not_allowed"
        // What it names
        case notFound = "not_found"
        case jobNotFound = "job_not_found"
        case fileNotFound = "file_not_found"
        case uploadNotFound = "upload_not_found"
        case groupNotFound = "group_not_found"
        case unknownQueue = "unknown_queue"
        case unknownPipeline = "unknown_pipeline"
        case gone
        case conflict
        case leaseLost = "lease_lost"
        case notAllowed = "not_allowed"
        // What is there to answer it
        case queueFull = "queue_full"
        case queueDraining = "queue_draining"
        case tooManyRequests = "too_many_requests"
        case tooManyFiles = "too_many_files"
        case diskFull = "disk_full"
        case unavailable
        case redisMisconfigured = "redis_misconfigured"
        case draining
        case timeout
        case internalError = "internal_error"
        // Starting
        case cannotListen = "cannot_listen"
        case insecureListen = "insecure_listen"
        case invalidConfiguration = "invalid_configuration"
    }

    public var code: Code
    /// A sentence for people, without secrets, without payload.
    public var message: String
    /// The path of the member that is wrong, e.g. `params.inputs[0].upload`.
    public var field: String?
    /// Seconds after which a repeated request has a chance; becomes `Retry-After`.
    public var retryAfterSeconds: Int?

    public init(_ code: Code, _ message: String, field: String? = nil, retryAfterSeconds: Int? = nil) {
        self.code = code
        self.message = message
        self.field = field
        self.retryAfterSeconds = retryAfterSeconds
    }

    public var description: String { "\(code.rawValue): \(message)" }

    /// The HTTP status of the code.
    public var status: Int {
        switch code {
        case .badRequest, .malformedJSON, .invalidName: 400
        case .originRefused, .notAllowed: 403
        case .notFound, .jobNotFound, .fileNotFound, .uploadNotFound, .groupNotFound, .unknownQueue, .unknownPipeline: 404
        case .methodNotAllowed: 405
        case .requestTimeout: 408
        case .conflict, .leaseLost, .tooManyFiles: 409
        case .gone: 410
        case .bodyTooLarge: 413
        case .uriTooLong: 414
        case .unsupportedMediaType, .notAnImage: 415
        case .rangeNotSatisfiable: 416
        case .hostRefused: 421
        case .unknownField, .missingField, .wrongType, .invalidValue: 422
        case .upgradeRequired: 426
        case .queueFull, .tooManyRequests: 429
        case .headersTooLarge: 431
        case .internalError, .cannotListen, .insecureListen, .invalidConfiguration: 500
        case .unavailable, .redisMisconfigured, .draining, .queueDraining: 503
        case .timeout: 504
        case .diskFull: 507
        }
    }
}
