import JobStore
import NIOCore
import ProgressCore

/// The body of `POST /v1/jobs/J/progress`, read strictly; no body at all is a heartbeat.
struct ProgressBody {
    /// A producer's first word.
    struct Opening {
        var pipeline = ""
        var nonce = ""
        var producer = ""
        var paramsJSON = "{}"
        var ttlMs: Int?
        var maxRuntimeMs: Int?
        var jobClass: String?
    }

    var opening: Opening?
    /// Phase and all that is named of it; terminal phases are in `end`.
    var report = ProgressReport()
    /// Something of `report` was named.
    var hasReport = false
    var write: Int?
    /// How long the producer may be silent from now on, when that is not the usual time.
    var leaseMs: Int?
    var log: [LogLine] = []
    var end: Phase?
    var resultJSON: String?
    var error: JobError?

    init(_ request: HTTPRequest, limits: GatewayLimits) throws(GatewayError) {
        guard request.body.readableBytes > 0 else { return }
        try request.requireJSON()
        try CheckedJSON(object: request.body, limits: limits).root.forEachPresentMember { (name, value) throws(GatewayError) in
            if try takeBar(name, value) {
                hasReport = true
            } else {
                try takeOther(name, value, limits)
            }
        }
        if let opening {
            guard !opening.pipeline.isEmpty else {
                throw GatewayError(.missingField, "open.pipeline: the name of a pipeline is needed", field: "open.pipeline")
            }
            guard !opening.nonce.isEmpty else {
                throw GatewayError(
                    .missingField,
                    "open.nonce: random text is needed, the same when this is sent again",
                    field: "open.nonce"
                )
            }
            guard end == nil else { throw GatewayError(.invalidValue, "phase: a job that is opened cannot end", field: "phase") }
        }
        guard resultJSON == nil || end == .complete else {
            throw GatewayError(.invalidValue, "result: only with phase COMPLETE", field: "result")
        }
        guard error == nil || end == .failed else { throw GatewayError(.invalidValue, "error: only with phase FAILED", field: "error") }
        guard error != nil || end != .failed else {
            throw GatewayError(.missingField, "error: {\"code\",\"message\"} is needed with phase FAILED", field: "error")
        }
    }

    /// The members that move the bar. False: the name is none of them.
    private mutating func takeBar(_ name: String, _ value: JSONView) throws(GatewayError) -> Bool {
        let percents = 0.0...100.0
        let milliseconds = 0...ProgressLimits.durationMs
        switch name {
        case "phase":
            let text = try value.requireText(name, most: 32)
            guard let phase = Phase(rawValue: text) else {
                let known = Phase.allCases.map(\.rawValue).joined(separator: " ")
                throw GatewayError(.invalidValue, "phase: one of \(known) is needed", field: name)
            }
            if phase.isTerminal { end = phase } else { report.phase = phase }
        case "percent": report.percent = try value.requireNumber(name, percents)
        case "phase_percent": report.phasePercent = try value.requireNumber(name, percents)
        case "percent_per_s": report.percentPerSecond = try value.requireNumber(name, 0...1_000_000)
        case "stage":
            guard let text = value.string else { throw value.wrongType(name, .string) }
            report.stage = StageName.sanitised(text) ?? ""
        case "stage_percent": report.stagePercent = try value.requireNumber(name, percents)
        case "step": report.step = try value.requireInteger(name, 0...ProgressLimits.steps)
        case "steps": report.steps = try value.requireInteger(name, 0...ProgressLimits.steps)
        case "item": report.item = try value.requireInteger(name, 0...ProgressLimits.items)
        case "items": report.items = try value.requireInteger(name, 0...ProgressLimits.items)
        case "message":
            guard let text = value.string else { throw value.wrongType(name, .string) }
            report.message = MessageText.sanitised(text)
        case "eta_ms": report.etaMs = try value.requireInteger(name, milliseconds)
        case "eta_low_ms": report.etaLowMs = try value.requireInteger(name, milliseconds)
        case "eta_high_ms": report.etaHighMs = try value.requireInteger(name, milliseconds)
        case "stalled": report.isStalled = try value.requireFlag(name)
        case "quiet_ms": report.quietMs = try value.requireInteger(name, milliseconds)
        default: return false
        }
        return true
    }

    private mutating func takeOther(_ name: String, _ value: JSONView, _ limits: GatewayLimits) throws(GatewayError) {
        switch name {
        case "write": write = try value.requireInteger(name, 1...(1 << 52))
        case "lease_ms": leaseMs = try value.requireInteger(name, limits.leaseMs)
        case "open": opening = try Self.opening(value)
        case "log": log = try Self.log(value)
        case "result":
            try value.require(.object, name)
            let text = value.compact
            guard text.utf8.count <= StoreLimits.resultBytes else {
                throw GatewayError(
                    .bodyTooLarge,
                    "result: at most \(StoreLimits.resultBytes) bytes; put files into the job's files",
                    field: name
                )
            }
            resultJSON = text
        case "error": error = try Self.error(value)
        default:
            throw GatewayError(
                .unknownField,
                "\(name.prefix(64)): unknown; known are open, phase, percent, phase_percent, percent_per_s, stage, stage_percent, step, steps, "
                    + "item, items, message, eta_ms, eta_low_ms, eta_high_ms, stalled, quiet_ms, write, lease_ms, log, result, error",
                field: String(name.prefix(64))
            )
        }
    }

    private static func opening(_ value: JSONView) throws(GatewayError) -> Opening {
        try value.require(.object, "open")
        var opening = Opening()
        try value.forEachPresentMember(of: "open") { (name, value) throws(GatewayError) in
            let path = "open.\(name.prefix(64))"
            switch name {
            case "pipeline": opening.pipeline = try value.requireText(path, most: StoreLimits.nameBytes)
            case "nonce": opening.nonce = try value.requireText(path, most: StoreLimits.nameBytes)
            case "producer": opening.producer = try value.requireText(path, most: StoreLimits.nameBytes)
            case "params":
                try value.require(.object, path)
                guard value.range.count <= StoreLimits.paramsBytes else {
                    throw GatewayError(.bodyTooLarge, "\(path): at most \(StoreLimits.paramsBytes) bytes", field: path)
                }
                opening.paramsJSON = value.raw
            case "ttl_ms": opening.ttlMs = try value.requireInteger(path, 1...StoreLimits.longestMs)
            case "max_runtime_ms": opening.maxRuntimeMs = try value.requireInteger(path, 1...StoreLimits.longestMs)
            case "class": opening.jobClass = try value.requireText(path, most: StoreLimits.nameBytes)
            default:
                throw GatewayError(
                    .unknownField,
                    "\(path): unknown; known are pipeline, nonce, producer, params, ttl_ms, max_runtime_ms, class",
                    field: path
                )
            }
        }
        return opening
    }

    private static func log(_ value: JSONView) throws(GatewayError) -> [LogLine] {
        try value.require(.array, "log")
        var lines: [LogLine] = []
        try value.forEachElement { (index, element) throws(GatewayError) in
            guard index < StoreLimits.logLinesPerWrite else {
                throw GatewayError(.invalidValue, "log: at most \(StoreLimits.logLinesPerWrite) lines", field: "log")
            }
            lines.append(try line(element, "log[\(index)]"))
        }
        return lines
    }

    /// A text, or a text with the stream it came from.
    private static func line(_ value: JSONView, _ path: String) throws(GatewayError) -> LogLine {
        var line = LogLine(stream: "producer", text: "")
        if let text = value.string {
            line.text = text
        } else {
            try value.require(.object, path)
            try value.forEachPresentMember(of: path) { (name, value) throws(GatewayError) in
                let path = "\(path).\(name.prefix(64))"
                switch name {
                case "stream": line.stream = try value.requireText(path, most: 32)
                case "text":
                    guard let text = value.string else { throw value.wrongType(path, .string) }
                    line.text = text
                default: throw GatewayError(.unknownField, "\(path): unknown; known are stream, text", field: path)
                }
            }
        }
        line.text = MessageText.sanitised(line.text, limit: StoreLimits.logLineBytes)
        line.stream = MessageText.sanitised(line.stream)
        return line
    }

    private static func error(_ value: JSONView) throws(GatewayError) -> JobError {
        try value.require(.object, "error")
        var code: String?
        var message = ""
        var isRecoverable = false
        try value.forEachPresentMember(of: "error") { (name, value) throws(GatewayError) in
            let path = "error.\(name.prefix(64))"
            switch name {
            case "code":
                let text = try value.requireText(path, most: 64)
                guard text.utf8.allSatisfy({ ($0 >= 0x61 && $0 <= 0x7a) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x5f }) else {
                    throw GatewayError(.invalidValue, "\(path): 1–64 characters of a-z 0-9 _ are needed", field: path)
                }
                code = text
            case "message":
                guard let text = value.string else { throw value.wrongType(path, .string) }
                message = MessageText.sanitised(text)
            case "recoverable": isRecoverable = try value.requireFlag(path)
            default: throw GatewayError(.unknownField, "\(path): unknown; known are code, message, recoverable", field: path)
            }
        }
        guard let code else { throw GatewayError(.missingField, "error.code: a code for programs is needed", field: "error.code") }
        return JobError(code: code, message: message, isRecoverable: isRecoverable)
    }
}
