import ProgressCore
import Yams

/// Reads pipelines from YAML:
/// ```yaml
/// pipelines:
///   NAME:
///     stages:
///       - { name: shape_generation, phase: GENERATING, weight: 0.7, expected_ms: 60000 }
/// ```
/// Unknown keys, missing keys and wrong types are errors that name the file and the line.
struct PipelineFile {
    let path: String

    /// The built-in pipelines, and those of `yaml` over them: a same name replaces.
    static func pipelines(addingFrom path: String? = nil, yaml: String? = nil) throws(CommandError) -> [Pipeline] {
        let builtin = String(decoding: PackageResources.builtin_pipelines_yaml, as: UTF8.self)
        var pipelines = try PipelineFile(path: "built-in pipelines").parse(builtin)
        guard let path, let yaml else { return pipelines }
        for pipeline in try PipelineFile(path: path).parse(yaml) {
            if let index = pipelines.firstIndex(where: { $0.name == pipeline.name }) {
                pipelines[index] = pipeline
            } else {
                pipelines.append(pipeline)
            }
        }
        guard pipelines.count <= Limits.pipelines else {
            throw .usage("\(path): \(pipelines.count) pipelines with the built-in ones; at most \(Limits.pipelines) are allowed")
        }
        return pipelines
    }

    func parse(_ yaml: String) throws(CommandError) -> [Pipeline] {
        guard let root = try YAMLDocument.root(of: yaml, path: path) else { throw .usage("\(path): empty; it must hold the key pipelines") }
        let top = try fields(of: root, in: "the file", required: ["pipelines"])
        guard let mapping = top["pipelines"]?.mapping else { throw problem(root, "pipelines must be a mapping from names to pipelines") }
        var pipelines: [Pipeline] = []
        for (key, node) in mapping {
            guard let name = key.scalar?.string else { throw problem(key, "the name of a pipeline must be text") }
            pipelines.append(try pipeline(name, node))
        }
        return pipelines
    }

    private func pipeline(_ name: String, _ node: Node) throws(CommandError) -> Pipeline {
        let fields = try fields(of: node, in: name, required: ["stages"])
        guard let list = fields["stages"]?.sequence else { throw problem(node, "\(name).stages must be a list") }
        var stages: [Pipeline.Draft] = []
        for item in list { stages.append(try stage(item, of: name)) }
        do {
            return try Pipeline(validating: name, stages: stages)
        } catch {
            // The room that knows the rules knows no lines: the name of the stage leads back to one.
            let index = error.stage.flatMap { wrong in stages.lastIndex { $0.name == wrong } }
            throw problem(index.map { list[$0] } ?? node, error.description)
        }
    }

    private func stage(_ node: Node, of pipeline: String) throws(CommandError) -> Pipeline.Draft {
        let fields = try fields(of: node, in: "a stage of \(pipeline)", required: ["name", "phase"], optional: ["weight", "expected_ms"])
        guard let name = fields["name"]?.scalar?.string else { throw problem(node, "a stage of \(pipeline): name must be text") }
        guard let phase = fields["phase"]?.scalar?.string else { throw problem(node, "\(pipeline).\(name): phase must be text") }
        var stage = Pipeline.Draft(name: name, phase: phase)
        if let node = fields["weight"] {
            guard let weight = node.scalar.flatMap({ Double($0.string) }) else {
                throw problem(node, "\(pipeline).\(name): weight must be a number above 0 and at most 1")
            }
            stage.weight = weight
        }
        if let node = fields["expected_ms"] {
            guard let value = node.scalar.flatMap({ Int($0.string) }) else {
                throw problem(node, "\(pipeline).\(name): expected_ms must be a whole number of milliseconds")
            }
            stage.expectedMs = value
        }
        return stage
    }

    /// The fields of a mapping with exactly these keys.
    private func fields(
        of node: Node,
        in place: String,
        required: [String],
        optional: [String] = []
    ) throws(CommandError) -> [String: Node] {
        let allowed = required + optional
        guard case .mapping(let mapping) = node else {
            throw problem(node, "\(place) must be a mapping with the keys \(allowed.joined(separator: ", "))")
        }
        var fields: [String: Node] = [:]
        for (key, value) in mapping {
            guard let name = key.scalar?.string, allowed.contains(name) else {
                throw problem(key, "\(place): unknown key \(key.scalar?.string ?? "?"); allowed: \(allowed.joined(separator: ", "))")
            }
            fields[name] = value
        }
        for name in required where fields[name] == nil { throw problem(node, "\(place): the key \(name) is missing") }
        return fields
    }

    private func problem(_ node: Node, _ text: String) -> CommandError {
        .usage("\(path):\(YAMLDocument.line(of: node)): \(text)")
    }
}
