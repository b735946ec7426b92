import ProgressCore
import Testing

@testable import headway

struct PipelineFileTests {
    @Test func theBuiltInPipelinesAreThoseOfTheDesign() throws {
        let pipelines = try PipelineFile.pipelines()
        #expect(pipelines.map(\.name) == ["hunyuan3d", "comic", "relief", "generic"])
        let first = try #require(pipelines.first)
        #expect(
            first.stages.map(\.name) == ["image_loading", "image_preprocessing", "shape_generation", "texture_synthesis", "mesh_export"]
        )
        #expect(first.stages.map { ($0.weight * 100).rounded() } == [1, 4, 70, 20, 5])
        #expect(first.stages.map(\.expectedMs) == [500, 2000, 60_000, 15_000, 3000])
        #expect(first.stages.map(\.phase) == [.analyzing, .analyzing, .generating, .generating, .postProcessing])
        #expect(pipelines[1].stages.map(\.phase) == [.analyzing, .analyzing, .generating, .postProcessing])
        #expect(pipelines[2].stages.map(\.name) == first.stages.map(\.name))
        #expect(pipelines[3].stages.isEmpty)
    }

    @Test func aFileAddsAndReplaces() throws {
        let yaml = """
            pipelines:
              comic:
                stages:
                  - { name: all, phase: GENERATING, weight: 1 }
              mine:
                stages:
                  - { name: a, phase: ANALYZING, weight: 0.25 }
                  - name: b
                    phase: GENERATING
                    weight: 0.75
                    expected_ms: 100
            """
        let pipelines = try PipelineFile.pipelines(addingFrom: "p.yaml", yaml: yaml)
        #expect(pipelines.map(\.name) == ["hunyuan3d", "comic", "relief", "generic", "mine"])
        #expect(pipelines[1].stages.count == 1)
        #expect(pipelines[4].stages[1].expectedMs == 100)
    }

    @Test(arguments: [
        ("", "p.yaml: empty"),
        ("stages: []", "p.yaml:1: the file: unknown key stages; allowed: pipelines"),
        ("pipelines: []", "p.yaml:1: pipelines must be a mapping"),
        ("pipelines:\n  a: 1", "p.yaml:2: a must be a mapping with the keys stages"),
        ("pipelines:\n  a: {}", "p.yaml:2: a: the key stages is missing"),
        ("pipelines:\n  a:\n    stages: 5", "stages must be a list"),
        (
            "pipelines:\n  a:\n    stages:\n      - 5",
            "p.yaml:4: a stage of a must be a mapping with the keys name, phase, weight, expected_ms"
        ),
        ("pipelines:\n  a:\n    stages:\n      - { name: x, phase: GENERATING, wieght: 1 }", "p.yaml:4: a stage of a: unknown key wieght"),
        ("pipelines:\n  a:\n    stages:\n      - { phase: GENERATING, weight: 1 }", "p.yaml:4: a stage of a: the key name is missing"),
        ("pipelines:\n  a:\n    stages:\n      - { name: x, phase: WORKING, weight: 1 }", "p.yaml:4: pipeline 'a', stage 'x'"),
        ("pipelines:\n  a:\n    stages:\n      - { name: x, phase: COMPLETE, weight: 1 }", "p.yaml:4: pipeline 'a', stage 'x'"),
        ("pipelines:\n  a:\n    stages:\n      - { name: x, phase: GENERATING, weight: heavy }", "p.yaml:4: a.x: weight must be a number"),
        ("pipelines:\n  a:\n    stages:\n      - { name: x, phase: GENERATING, weight: 0.5 }", "weights add up to 0.5"),
        (
            "pipelines:\n  a:\n    stages:\n      - { name: x, phase: GENERATING, weight: 1, expected_ms: 1.5 }",
            "expected_ms must be a whole"
        ),
        ("pipelines:\n  A B:\n    stages: []", "p.yaml:"),
    ])
    func badFilesAreRefusedWithTheirPlace(_ yaml: String, _ expected: String) {
        do {
            _ = try PipelineFile(path: "p.yaml").parse(yaml)
            Issue.record("accepted: \(yaml)")
        } catch {
            #expect(error.message.contains(expected), "\(error.message)")
            #expect(error.message.hasPrefix("p.yaml") && !error.message.contains("\n"))
        }
    }

    @Test func twoStagesOfOneNameAreShownAtTheSecond() {
        let yaml = """
            pipelines:
              a:
                stages:
                  - { name: x, phase: GENERATING, weight: 0.5 }
                  - { name: x, phase: GENERATING, weight: 0.5 }
            """
        do {
            _ = try PipelineFile(path: "p.yaml").parse(yaml)
            Issue.record("accepted")
        } catch {
            #expect(error.message.hasPrefix("p.yaml:5: "), "\(error.message)")
        }
    }
}
