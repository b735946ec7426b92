import JobStore
import ProgressCore

/// One JSON line of a generator, read: `{"stage":"shape_generation","step":21,"steps":50}`, `{"log":"…"}`, `{"result":{…}}`.
///
/// Members that are unknown or of another type are ignored, so that a script may say more than we understand.
struct GeneratorLine: Hashable {
    var update: ProgressUpdate?
    var plan: [PlannedStage]?
    var jobClass: String?
    var isCold: Bool?
    var log: String?
    var preview: String?
    /// The result's own text, a JSON object.
    var resultJSON: String?
    var error: BackendError?

    /// Nil for what is not a JSON object.
    init?(_ bytes: [UInt8]) {
        do throws(JSONScanner.Malformed) {
            var scanner = try JSONScanner(bytes)
            guard case .object(let range) = try scanner.document() else { return nil }
            var update = ProgressUpdate()
            for member in try scanner.members(of: range) {
                try read(member.name, member.value, from: scanner, into: &update)
            }
            if update != ProgressUpdate() { self.update = update }
        } catch {
            return nil
        }
    }

    private mutating func read(
        _ name: String,
        _ value: JSONScanner.Value,
        from scanner: JSONScanner,
        into update: inout ProgressUpdate
    ) throws(JSONScanner.Malformed) {
        switch (name, value) {
        case ("stage", .string(let text)): update.stage = text
        case ("message", .string(let text)): update.message = text
        case ("step", .number(let number)): update.step = Self.whole(number)
        case ("steps", .number(let number)): update.steps = Self.whole(number)
        case ("item", .number(let number)): update.item = Self.whole(number)
        case ("items", .number(let number)): update.items = Self.whole(number)
        case ("percent", .number(let number)): update.percent = number
        case ("class", .string(let text)) where !text.isEmpty && text.utf8.count <= StoreLimits.nameBytes: jobClass = text
        case ("cold", .bool(let flag)): isCold = flag
        case ("log", .string(let text)): log = text
        case ("preview", .string(let text)): preview = text
        case ("result", .object(let range)): resultJSON = scanner.text(range)
        case ("error", .string(let text)): error = Self.failure(code: nil, message: text, isRecoverable: nil)
        case ("error", .object(let range)): error = try Self.failure(scanner, range)
        case ("plan", .array(let range)): plan = try Self.plan(scanner, range)
        default: break
        }
    }

    private static func failure(_ scanner: JSONScanner, _ range: Range<Int>) throws(JSONScanner.Malformed) -> BackendError {
        var code: String?
        var message: String?
        var isRecoverable: Bool?
        for member in try scanner.members(of: range) {
            switch (member.name, member.value) {
            case ("code", .string(let text)): code = text
            case ("message", .string(let text)): message = text
            case ("recoverable", .bool(let flag)): isRecoverable = flag
            default: break
            }
        }
        return failure(code: code, message: message, isRecoverable: isRecoverable)
    }

    private static func failure(code: String?, message: String?, isRecoverable: Bool?) -> BackendError {
        let isUsable = code.map { code in
            (1...64).contains(code.utf8.count)
                && code.utf8.allSatisfy { byte in
                    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                        || byte == UInt8(ascii: "_")
                }
        }
        return BackendError(
            code: isUsable == true ? code ?? "generator_failed" : "generator_failed",
            message: MessageText.sanitised(message ?? "the generator reported an error without a message"),
            isRecoverable: isRecoverable ?? true
        )
    }

    private static func plan(_ scanner: JSONScanner, _ range: Range<Int>) throws(JSONScanner.Malformed) -> [PlannedStage] {
        var plan: [PlannedStage] = []
        for element in try scanner.elements(of: range).prefix(ProgressLimits.stages) {
            guard case .object(let range) = element else { continue }
            var stage = PlannedStage(name: "")
            for member in try scanner.members(of: range) {
                switch (member.name, member.value) {
                case ("stage", .string(let text)): stage.name = text
                case ("units", .number(let number)): stage.units = number
                case ("work", .number(let number)): stage.work = number
                case ("declared_ms", .number(let number)): stage.declaredMs = whole(number)
                default: break
                }
            }
            if !stage.name.isEmpty { plan.append(stage) }
        }
        return plan
    }

    /// A plan as a submitter gave it: a JSON array; nil for anything else.
    static func plan(json: String) -> [PlannedStage]? {
        do throws(JSONScanner.Malformed) {
            var scanner = try JSONScanner(Array(json.utf8))
            guard case .array(let range) = try scanner.document() else { return nil }
            return try plan(scanner, range)
        } catch {
            return nil
        }
    }

    private static func whole(_ number: Double) -> Int? {
        guard number.isFinite else { return nil }
        return Int(min(max(number, -9e15), 9e15))
    }
}
