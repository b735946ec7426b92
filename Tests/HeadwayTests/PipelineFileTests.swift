import ProgressCore
import Testing

@testable import headway

struct PipelineFileTests {
    @Test func theBuiltInPipelinesAreThoseOfTheDesign() throws {
        let pipelines = try PipelineFile.pipelines()
        #expect(pipelines.map(\.name) == ["hunyuan3d", "diffusers", "comic", "relief", "generic"])
        let first = try #require(pipelines.first)
        #expect(
            first.stages.map(\.name) == ["image_loading", "image_preprocessing", "shape_generation", "texture_synthesis", "mesh_export"]
        )
        #expect(first.stages.map { ($0.weight * 100).rounded() } == [1, 4, 70, 20, 5])
        #expect(first.stages.map(\.expectedMs) == [500, 2000, 60_000, 15_000, 3000])
        #expect(first.stages.map(\.phase) == [.analyzing, .analyzing, .generating, .generating, .postProcessing])
        #expect(pipelines[2].stages.map(\.phase) == [.analyzing, .analyzing, .generating, .postProcessing])
        #expect(pipelines[3].stages.map(\.name) == first.stages.map(\.name))
        #expect(pipelines[4].stages.isEmpty)
    }

    @Test func aPipelineMayNameTheClassOfItsJobs() throws {
        let stages = "    stages: [{ name: x, phase: GENERATING }]\n"
        let named = try PipelineFile(path: "f").parse("pipelines:\n  a:\n    class: a100\n\(stages)  b:\n\(stages)")
        #expect(named.map(\.jobClass) == ["a100", nil])
        for wrong in ["[x]", "\"\"", String(repeating: "x", count: 65)] {
            #expect {
                _ = try PipelineFile(path: "f").parse("pipelines:\n  a:\n    class: \(wrong)\n\(stages)")
            } throws: {
                "\($0)".contains("f:3") && "\($0)".contains("a.class")
            }
        }
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
        #expect(pipelines.map(\.name) == ["hunyuan3d", "diffusers", "comic", "relief", "generic", "mine"])
        #expect(pipelines[2].stages.count == 1)
        #expect(pipelines[5].stages[1].expectedMs == 100)
    }

    @Test(arguments: [
        ("", "p.yaml: empty"),
        ("stages: []", "p.yaml:1: the file: unknown key stages; allowed: pipelines"),
        ("pipelines: []", "p.yaml:1: pipelines must be a mapping"),
        ("pipelines:\n  a: 1", "p.yaml:2: a must be a mapping with the keys stages, progress"),
        ("pipelines:\n  a: {}", "p.yaml:2: a: the key stages is missing"),
        ("pipelines:\n  a:\n    stages: 5", "stages must be a list"),
        (
            "pipelines:\n  a:\n    stages:\n      - 5",
            "p.yaml:4: a stage of a must be a mapping with the keys name, phase, weight, expected_ms, bars"
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

    @Test func barsAndPatternsAreRead() throws {
        let yaml = """
            pipelines:
              a:
                stages:
                  - { name: x, phase: GENERATING, bars: [Sampling, "", { title: "Decoding*", from: 60, to: 80.5 }] }
                progress:
                  - match: 'Epoch (?<step>\\d+)/(?<steps>\\d+)'
                    stage: x
                  - { match: "(?<percent>[0-9.]+)%" }
            """
        let pipeline = try #require(try PipelineFile(path: "p.yaml").parse(yaml).first)
        #expect(
            pipeline.stages[0].bars == [
                .init(title: "Sampling"), .init(title: ""), .init(title: "Decoding*", from: 60, to: 80.5),
            ]
        )
        #expect(pipeline.patterns.map(\.match.text) == ["Epoch (?<step>\\d+)/(?<steps>\\d+)", "(?<percent>[0-9.]+)%"])
        #expect(pipeline.patterns.map(\.stage) == ["x", nil])
    }

    @Test(arguments: [
        ("bars: 5", "", "p.yaml:4: a.x: bars must be a list of titles"),
        ("bars: [{ from: 5 }]", "", "p.yaml:4: a bar of a.x: the key title is missing"),
        ("bars: [{ title: b, from: 50, to: 5 }]", "", "p.yaml:4: pipeline 'a', stage 'x': the bar 'b' goes from 50.0 to 5.0"),
        ("bars: [{ title: b, to: many }]", "", "p.yaml:4: a.x: to of a bar must be a number"),
        ("weight: 1", "progress: 5", "p.yaml:5: a.progress must be a list"),
        ("weight: 1", "progress: [{ stage: b }]", "p.yaml:5: a progress pattern of a: the key match is missing"),
        (
            "weight: 1", "progress: [{ match: '(a' }]",
            "p.yaml:5: pipeline 'a': progress pattern '(a' at character 1: the group is not closed"
        ),
        ("weight: 1", "progress: [{ match: '(?<speed>a)' }]", "has a group 'speed'; allowed are step, steps, percent"),
        ("weight: 1", "progress: [{ match: abc }]", "says nothing"),
        ("weight: 1", "progress: [{ match: '(?<stage>a)', stage: b }]", "one of them is enough"),
        ("weight: 1", "progress: [{ match: a, stage: 'é' }]", "whose name holds a character that is not allowed"),
    ])
    func badBarsAndPatternsAreRefused(_ stage: String, _ progress: String, _ expected: String) {
        let yaml = "pipelines:\n  a:\n    stages:\n      - { name: x, phase: GENERATING, \(stage) }\n    \(progress)"
        do {
            _ = try PipelineFile(path: "p.yaml").parse(yaml)
            Issue.record("accepted: \(yaml)")
        } catch {
            #expect(error.message.contains(expected), "\(error.message)")
        }
    }

    @Test func tooManyPatternsAreRefused() {
        let list = String(repeating: "      - { match: a, stage: b }\n", count: 33)
        #expect(throws: CommandError.self) {
            try PipelineFile(path: "p.yaml").parse("pipelines:\n  a:\n    stages: []\n    progress:\n\(list)")
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
