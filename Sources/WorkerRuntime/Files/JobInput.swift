import ProgressCore

/// An upload that a job refers to in `params.inputs`.
struct JobInput: Hashable {
    let upload: String
    /// The name it gets in the input directory.
    let name: String

    /// Reads `{"inputs":[{"upload":"…","name":"…"}]}`; no member `inputs` is no inputs.
    static func list(paramsJSON: String) throws(BackendError) -> [JobInput] {
        guard JSONScanner.mayHold(member: "inputs", paramsJSON) else { return [] }
        var inputs: [JobInput] = []
        do throws(JSONScanner.Malformed) {
            var scanner = try JSONScanner(Array(paramsJSON.utf8))
            guard case .object(let range) = try scanner.document() else { return [] }
            for member in try scanner.members(of: range) where member.name == "inputs" {
                guard case .array(let list) = member.value else { throw JSONScanner.Malformed() }
                for element in try scanner.elements(of: list) {
                    guard case .object(let object) = element else { throw JSONScanner.Malformed() }
                    var upload: String?
                    var name: String?
                    for field in try scanner.members(of: object) {
                        if field.name == "upload", case .string(let text) = field.value { upload = text }
                        if field.name == "name", case .string(let text) = field.value { name = text }
                    }
                    guard let upload, !upload.isEmpty, upload.utf8.count <= 128, upload.utf8.allSatisfy(FileName.isPlain) else {
                        throw JSONScanner.Malformed()
                    }
                    inputs.append(JobInput(upload: upload, name: name ?? upload))
                }
            }
        } catch {
            throw .inputUnavailable(
                "inputs",
                #"params.inputs has to be a list of {"upload":"<id>","name":"<file name>"}"#,
                isRecoverable: false
            )
        }
        guard inputs.count <= WorkerLimits.inputs else {
            throw .inputUnavailable("inputs", "there are more than \(WorkerLimits.inputs)", isRecoverable: false)
        }
        for (index, input) in inputs.enumerated() {
            guard FileName.isSafe(input.name) else {
                throw .inputUnavailable(
                    MessageText.sanitised(input.name, limit: 100),
                    "its name has to be a plain file name",
                    isRecoverable: false
                )
            }
            guard !inputs[..<index].contains(where: { $0.name == input.name }) else {
                throw .inputUnavailable(input.name, "two inputs have this name", isRecoverable: false)
            }
        }
        return inputs
    }
}
