import JobStore
import NIOCore
import ProgressCore

/// The body of `POST /v1/jobs`, read strictly: unknown members, wrong types and values out of range are refused by name.
struct SubmitBody {
    /// One file the job's parameters refer to.
    struct Input: Equatable {
        let upload: String
        let name: String
        /// Where it stands in the body, e.g. `params.inputs[0]`.
        let field: String
    }

    var queue = ""
    var pipeline = ""
    var paramsJSON = "{}"
    var id: JobID?
    var idempotencyKey: String?
    var priority: Int?
    var delayMs: Int?
    var expiresAtMs: Int?
    var maxAttempts: Int?
    var maxRuntimeMs: Int?
    var ttlMs: Int?
    var jobClass: String?
    var isCold: Bool?
    var planJSON: String?
    var inputs: [Input] = []

    /// - Parameter nowMs: Unix milliseconds, for what must lie in the future.
    init(_ body: ByteBuffer, limits: GatewayLimits, nowMs: Int) throws(GatewayError) {
        let json: CheckedJSON
        do {
            json = try CheckedJSON(Array(body.readableBytesView), maximumDepth: limits.jsonDepth)
        } catch {
            throw GatewayError(.malformedJSON, "the body is not JSON: \(error.message) at byte \(error.offset)")
        }
        guard json.root.kind == .object else { throw GatewayError(.wrongType, "the body must be a JSON object") }
        var names: Set<String> = []
        try json.root.forEachMember { (name, value) throws(GatewayError) in
            guard names.insert(name).inserted else {
                throw GatewayError(.invalidValue, "\(name) is there twice", field: name)
            }
            // A member that is null is one that is not there.
            if value.kind != .null { try take(name, value, limits) }
        }
        guard !queue.isEmpty else { throw GatewayError(.missingField, "queue: the name of a queue is needed", field: "queue") }
        guard !pipeline.isEmpty else { throw GatewayError(.missingField, "pipeline: the name of a pipeline is needed", field: "pipeline") }
        guard id == nil || idempotencyKey == nil else {
            throw GatewayError(.invalidValue, "give id or idempotency_key, not both: either names the job", field: "idempotency_key")
        }
        if let expiresAtMs, expiresAtMs <= nowMs + (delayMs ?? 0) {
            throw GatewayError(
                .invalidValue,
                "expires_at: Unix milliseconds in the future are needed, behind the end of delay_ms",
                field: "expires_at"
            )
        }
    }

    private mutating func take(_ name: String, _ value: JSONView, _ limits: GatewayLimits) throws(GatewayError) {
        switch name {
        case "queue":
            queue = try text(name, value, most: 64)
            guard StoreLimits.isQueueName(queue) else {
                throw GatewayError(.invalidValue, "queue: 1–64 characters of a-z 0-9 - are needed", field: name)
            }
        case "pipeline": pipeline = try text(name, value, most: StoreLimits.nameBytes)
        case "params":
            try need(.object, name, value)
            guard value.range.count <= StoreLimits.paramsBytes else {
                throw GatewayError(.bodyTooLarge, "params: at most \(StoreLimits.paramsBytes) bytes; put files into uploads", field: name)
            }
            paramsJSON = value.raw
            inputs = try Self.inputs(of: value, limits)
        case "id": id = try jobID(name, value)
        case "idempotency_key": idempotencyKey = try text(name, value, most: 256)
        case "priority": priority = try integer(name, value, 0...StoreLimits.highestPriority)
        case "delay_ms": delayMs = try integer(name, value, 0...StoreLimits.longestMs)
        case "expires_at": expiresAtMs = try integer(name, value, 1...(1 << 52))
        case "max_attempts": maxAttempts = try integer(name, value, 1...StoreLimits.maximumAttempts)
        case "max_runtime_ms": maxRuntimeMs = try integer(name, value, 1...StoreLimits.longestMs)
        case "ttl_ms": ttlMs = try integer(name, value, 1...StoreLimits.longestMs)
        case "class": jobClass = try text(name, value, most: StoreLimits.nameBytes)
        case "cold":
            try need(.boolean, name, value)
            isCold = value.bool
        case "plan":
            try need(.array, name, value)
            guard value.range.count <= StoreLimits.planBytes else {
                throw GatewayError(.bodyTooLarge, "plan: at most \(StoreLimits.planBytes) bytes", field: name)
            }
            try Self.checkPlan(value)
            planJSON = value.raw
        case "parent":
            throw GatewayError(.invalidValue, "parent: groups of jobs are not there yet", field: name)
        default:
            throw GatewayError(
                .unknownField,
                "\(name.prefix(64)): unknown; known are queue, pipeline, params, id, idempotency_key, priority, delay_ms, expires_at, "
                    + "max_attempts, max_runtime_ms, ttl_ms, class, cold, plan",
                field: String(name.prefix(64))
            )
        }
    }

    // MARK: Typed members

    private func need(_ kind: JSONView.Kind, _ name: String, _ value: JSONView) throws(GatewayError) {
        guard value.kind == kind else { throw Self.wrongType(name, kind, value) }
    }

    private static func wrongType(_ name: String, _ kind: JSONView.Kind, _ value: JSONView) -> GatewayError {
        GatewayError(.wrongType, "\(name): \(kind.rawValue) needed, \(value.kind.rawValue) found", field: name)
    }

    private func text(_ name: String, _ value: JSONView, most: Int) throws(GatewayError) -> String {
        guard let text = value.string else { throw Self.wrongType(name, .string, value) }
        guard (1...most).contains(text.utf8.count), text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7f }) else {
            throw GatewayError(.invalidValue, "\(name): 1–\(most) bytes without control characters are needed", field: name)
        }
        return text
    }

    private func integer(_ name: String, _ value: JSONView, _ range: ClosedRange<Int>) throws(GatewayError) -> Int {
        try need(.number, name, value)
        guard let number = value.int, range.contains(number) else {
            throw GatewayError(.invalidValue, "\(name): a whole number \(range.lowerBound)…\(range.upperBound) is needed", field: name)
        }
        return number
    }

    private func jobID(_ name: String, _ value: JSONView) throws(GatewayError) -> JobID {
        guard let text = value.string else { throw Self.wrongType(name, .string, value) }
        guard let id = JobID(text), !text.contains("~") else {
            throw GatewayError(
                .invalidValue,
                "id: 1–\(JobID.maximumLength) characters of A-Z a-z 0-9 . _ : - are needed (~ is reserved)",
                field: name
            )
        }
        return id
    }

    /// `[{"stage":"shape_generation","units":50,"work":1.5}]`: the stages a job knows it will have.
    private static func checkPlan(_ plan: JSONView) throws(GatewayError) {
        try plan.forEachElement { (index, element) throws(GatewayError) in
            let field = "plan[\(index)]"
            guard index < ProgressLimits.stages else {
                throw GatewayError(.invalidValue, "plan: at most \(ProgressLimits.stages) stages", field: "plan")
            }
            guard element.kind == .object else { throw wrongType(field, .object, element) }
            var stage: String?
            try element.forEachMember { (name, value) throws(GatewayError) in
                let path = "\(field).\(name.prefix(64))"
                switch name {
                case "stage":
                    guard let text = value.string else { throw wrongType(path, .string, value) }
                    stage = StageName.sanitised(text)
                case "units", "work", "declared_ms":
                    guard value.kind == .number else { throw wrongType(path, .number, value) }
                    guard let number = value.double, number > 0, number <= ProgressLimits.planUnits else {
                        throw GatewayError(.invalidValue, "\(path): a number above 0, at most 1e9, is needed", field: path)
                    }
                default: throw GatewayError(.unknownField, "\(path): unknown; known are stage, units, work, declared_ms", field: path)
                }
            }
            guard stage != nil else {
                throw GatewayError(.missingField, "\(field).stage: a stage's name is needed", field: "\(field).stage")
            }
        }
    }

    /// `params.inputs`: `[{"upload":"…","name":"photo.jpg"}]`.
    private static func inputs(of params: JSONView, _ limits: GatewayLimits) throws(GatewayError) -> [Input] {
        var found: JSONView?
        var names: Set<String> = []
        // Of two members with one name, every reader takes another one.
        try params.forEachMember { (name, value) throws(GatewayError) in
            guard names.insert(name).inserted else {
                let field = "params.\(name.prefix(64))"
                throw GatewayError(.invalidValue, "\(field) is there twice", field: field)
            }
            if name == "inputs" { found = value }
        }
        guard let found else { return [] }
        guard found.kind == .array else { throw wrongType("params.inputs", .array, found) }
        var inputs: [Input] = []
        try found.forEachElement { (index, element) throws(GatewayError) in
            let field = "params.inputs[\(index)]"
            guard inputs.count < limits.jobInputs else {
                throw GatewayError(.invalidValue, "params.inputs: at most \(limits.jobInputs)", field: "params.inputs")
            }
            guard element.kind == .object else { throw wrongType(field, .object, element) }
            var upload: String?
            var name: String?
            element.forEachMember { member, value in
                if member == "upload" { upload = value.string }
                if member == "name" { name = value.string }
            }
            guard let upload, let name, !upload.isEmpty else {
                throw GatewayError(.missingField, "\(field): {\"upload\",\"name\"} as POST /v1/uploads answered are needed", field: field)
            }
            guard BlobName(name) != nil else {
                throw GatewayError(
                    .invalidName,
                    "\(field).name: a plain file name is needed, without path or control characters",
                    field: field
                )
            }
            guard !inputs.contains(where: { $0.name == name }) else {
                throw GatewayError(.invalidValue, "\(field).name: '\(name)' is there twice", field: field)
            }
            inputs.append(Input(upload: upload, name: name, field: field))
        }
        return inputs
    }
}
