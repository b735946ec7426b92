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
    /// Label of workers that should run it.
    var prefer: String?
    /// The group it is a child of; `id`, if given, is then one of its children's.
    var parent: JobID?
    /// It is a group of so many children.
    var children: Int?
    var inputs: [Input] = []

    /// The pipeline of a group that names none: no work of its own, so no stages either.
    static let groupPipeline = "group"

    /// - Parameter nowMs: Unix milliseconds, for what must lie in the future.
    init(_ body: ByteBuffer, limits: GatewayLimits, nowMs: Int) throws(GatewayError) {
        var given: [String] = []
        try CheckedJSON(object: body, limits: limits).root.forEachPresentMember { (name, value) throws(GatewayError) in
            given.append(name)
            try take(name, value, limits)
        }
        try checkFamily(given)
        guard !queue.isEmpty || children != nil else {
            throw GatewayError(.missingField, "queue: the name of a queue is needed", field: "queue")
        }
        if pipeline.isEmpty, children != nil { pipeline = Self.groupPipeline }
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

    /// What only work has: a group is none.
    private static let ofWork = ["priority", "delay_ms", "max_attempts", "max_runtime_ms", "cold", "plan", "prefer"]

    private func checkFamily(_ given: [String]) throws(GatewayError) {
        if let parent {
            guard children == nil else {
                throw GatewayError(.invalidValue, "children: a child of a group cannot be a group itself", field: "children")
            }
            guard idempotencyKey == nil else {
                throw GatewayError(
                    .invalidValue,
                    "idempotency_key: a child is submitted once by its own id, \(parent)~1, \(parent)~2 and so on: give that as id",
                    field: "idempotency_key"
                )
            }
            guard id == nil || (id?.childNumber != nil && id?.root == parent.text[...]) else {
                throw GatewayError(
                    .invalidValue,
                    "id: a child of \(parent) is \(parent)~ and its number from 1 on; without id it takes the next one",
                    field: "id"
                )
            }
        } else if let id, id.childNumber != nil {
            throw GatewayError(.invalidValue, "id: ~ is reserved: \(id) is a child, to be submitted with parent \(id.root)", field: "id")
        }
        if children != nil, let wrong = given.first(where: { Self.ofWork.contains($0) }) {
            throw GatewayError(.invalidValue, "\(wrong): a group is no work itself: give it to each child", field: wrong)
        }
    }

    private mutating func take(_ name: String, _ value: JSONView, _ limits: GatewayLimits) throws(GatewayError) {
        switch name {
        case "queue":
            queue = try value.requireText(name, most: 64)
            guard StoreLimits.isQueueName(queue) else {
                throw GatewayError(.invalidValue, "queue: 1–64 characters of a-z 0-9 - are needed", field: name)
            }
        case "pipeline": pipeline = try value.requireText(name, most: StoreLimits.nameBytes)
        case "params":
            inputs = try Self.inputs(ofParams: value, limits)
            paramsJSON = value.raw
        case "id": id = try Self.jobID(name, value)
        case "idempotency_key": idempotencyKey = try value.requireText(name, most: 256)
        case "parent":
            parent = try Self.jobID(name, value)
            guard parent?.childNumber == nil else {
                throw GatewayError(.invalidValue, "parent: the id of a group is needed, which has no ~", field: name)
            }
        case "children": children = try value.requireInteger(name, 1...StoreLimits.children)
        case "prefer":
            let label = try value.requireText(name, most: 64)
            guard StoreLimits.isLabel(label) else {
                throw GatewayError(.invalidValue, "prefer: 1–64 characters of A-Z a-z 0-9 . _ - are needed", field: name)
            }
            prefer = label
        case "priority": priority = try value.requireInteger(name, 0...StoreLimits.highestPriority)
        case "delay_ms": delayMs = try value.requireInteger(name, 0...StoreLimits.longestMs)
        case "expires_at": expiresAtMs = try value.requireInteger(name, 1...(1 << 52))
        case "max_attempts": maxAttempts = try value.requireInteger(name, 1...StoreLimits.maximumAttempts)
        case "max_runtime_ms": maxRuntimeMs = try value.requireInteger(name, 1...StoreLimits.longestMs)
        case "ttl_ms": ttlMs = try value.requireInteger(name, 1...StoreLimits.longestMs)
        case "class": jobClass = try value.requireText(name, most: StoreLimits.nameBytes)
        case "cold": isCold = try value.requireFlag(name)
        case "plan":
            try value.require(.array, name)
            guard value.range.count <= StoreLimits.planBytes else {
                throw GatewayError(.bodyTooLarge, "plan: at most \(StoreLimits.planBytes) bytes", field: name)
            }
            try Self.checkPlan(value)
            planJSON = value.raw
        default:
            throw GatewayError(
                .unknownField,
                "\(name.prefix(64)): unknown; known are queue, pipeline, params, id, idempotency_key, parent, children, prefer, priority, "
                    + "delay_ms, expires_at, max_attempts, max_runtime_ms, ttl_ms, class, cold, plan",
                field: String(name.prefix(64))
            )
        }
    }

    /// Checks params and gives the uploads they refer to.
    static func inputs(ofParams value: JSONView, _ limits: GatewayLimits) throws(GatewayError) -> [Input] {
        try value.require(.object, "params")
        guard value.range.count <= StoreLimits.paramsBytes else {
            throw GatewayError(.bodyTooLarge, "params: at most \(StoreLimits.paramsBytes) bytes; put files into uploads", field: "params")
        }
        return try inputs(of: value, limits)
    }

    private static func jobID(_ name: String, _ value: JSONView) throws(GatewayError) -> JobID {
        guard let text = value.string else { throw value.wrongType(name, .string) }
        guard let id = JobID(text) else {
            throw GatewayError(
                .invalidValue,
                "\(name): 1–\(JobID.maximumLength) characters of A-Z a-z 0-9 . _ : - are needed (~ is reserved)",
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
            guard element.kind == .object else { throw element.wrongType(field, .object) }
            var stage: String?
            try element.forEachMember { (name, value) throws(GatewayError) in
                let path = "\(field).\(name.prefix(64))"
                switch name {
                case "stage":
                    guard let text = value.string else { throw value.wrongType(path, .string) }
                    stage = StageName.sanitised(text)
                case "units", "work", "declared_ms":
                    guard value.kind == .number else { throw value.wrongType(path, .number) }
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
        try params.forEachPresentMember(of: "params") { (name, value) throws(GatewayError) in
            if name == "inputs" { found = value }
        }
        guard let found else { return [] }
        guard found.kind == .array else { throw found.wrongType("params.inputs", .array) }
        var inputs: [Input] = []
        try found.forEachElement { (index, element) throws(GatewayError) in
            let field = "params.inputs[\(index)]"
            guard inputs.count < limits.jobInputs else {
                throw GatewayError(.invalidValue, "params.inputs: at most \(limits.jobInputs)", field: "params.inputs")
            }
            guard element.kind == .object else { throw element.wrongType(field, .object) }
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
