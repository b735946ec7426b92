import ProgressCore
import Yams

/// Reads pipelines from YAML:
/// ```yaml
/// pipelines:
///   NAME:
///     class: a100   # of jobs that name none
///     stages:
///       - { name: shape_generation, phase: GENERATING, weight: 0.7, expected_ms: 60000, bars: [Diffusion Sampling] }
///     progress:
///       - { match: 'Epoch (?<step>\d+)/(?<steps>\d+)', stage: training }
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
        let fields = try fields(of: node, in: name, required: ["stages"], optional: ["progress", "class"])
        guard let list = fields["stages"]?.sequence else { throw problem(node, "\(name).stages must be a list") }
        var stages: [Pipeline.Draft] = []
        for item in list { stages.append(try stage(item, of: name)) }
        var patterns: [Pipeline.PatternDraft] = []
        let patternNodes = fields["progress"]?.sequence.map(Array.init) ?? []
        if let node = fields["progress"], node.sequence == nil { throw problem(node, "\(name).progress must be a list") }
        for item in patternNodes { patterns.append(try pattern(item, of: name)) }
        let jobClass = try fields["class"].map { (node) throws(CommandError) in
            guard let text = node.scalar?.string, !text.isEmpty, text.utf8.count <= ProgressLimits.stageNameBytes else {
                throw problem(node, "\(name).class must be text of 1–\(ProgressLimits.stageNameBytes) bytes")
            }
            return text
        }
        do {
            var pipeline = try Pipeline(validating: name, stages: stages, patterns: patterns)
            pipeline.jobClass = jobClass
            return pipeline
        } catch {
            // The room that knows the rules knows no lines: the name of the stage, or the place of the pattern, leads back to one.
            let index = error.stage.flatMap { wrong in stages.lastIndex { $0.name == wrong } }
            throw problem(index.map { list[$0] } ?? error.pattern.map { patternNodes[$0] } ?? node, error.description)
        }
    }

    private func pattern(_ node: Node, of pipeline: String) throws(CommandError) -> Pipeline.PatternDraft {
        let fields = try fields(of: node, in: "a progress pattern of \(pipeline)", required: ["match"], optional: ["stage"])
        guard let match = fields["match"]?.scalar?.string else { throw problem(node, "\(pipeline).progress: match must be text") }
        var pattern = Pipeline.PatternDraft(match: match)
        if let node = fields["stage"] {
            guard let stage = node.scalar?.string else { throw problem(node, "\(pipeline).progress: stage must be text") }
            pattern.stage = stage
        }
        return pattern
    }

    /// Bars that mean a stage: titles, or mappings of a title and the part of the stage, in percent.
    private func bars(_ node: Node, of stage: String) throws(CommandError) -> [Pipeline.Bar] {
        guard let list = node.sequence else { throw problem(node, "\(stage): bars must be a list of titles") }
        var bars: [Pipeline.Bar] = []
        for item in list {
            if let title = item.scalar?.string {
                bars.append(Pipeline.Bar(title: title))
                continue
            }
            let fields = try fields(of: item, in: "a bar of \(stage)", required: ["title"], optional: ["from", "to"])
            guard let title = fields["title"]?.scalar?.string else { throw problem(item, "\(stage): the title of a bar must be text") }
            var ends = ["from": 0.0, "to": 100.0]
            for name in ["from", "to"] {
                guard let node = fields[name] else { continue }
                guard let value = node.scalar.flatMap({ Double($0.string) }), value.isFinite else {
                    throw problem(node, "\(stage): \(name) of a bar must be a number, in percent of the stage")
                }
                ends[name] = value
            }
            bars.append(Pipeline.Bar(title: title, from: ends["from"] ?? 0, to: ends["to"] ?? 100))
        }
        return bars
    }

    private func stage(_ node: Node, of pipeline: String) throws(CommandError) -> Pipeline.Draft {
        let fields = try fields(
            of: node,
            in: "a stage of \(pipeline)",
            required: ["name", "phase"],
            optional: ["weight", "expected_ms", "bars"]
        )
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
        if let node = fields["bars"] { stage.bars = try bars(node, of: "\(pipeline).\(name)") }
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
