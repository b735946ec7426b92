import ProgressCore
import Testing

@Suite struct PipelineTests {
    private typealias Draft = Pipeline.Draft

    private static let good = [
        Draft(name: "image_loading", phase: "ANALYZING", weight: 0.05, expectedMs: 500),
        Draft(name: "shape_generation", phase: "GENERATING", weight: 0.7, expectedMs: 60_000),
        Draft(name: "mesh_export", phase: "POST_PROCESSING", weight: 0.25, expectedMs: 3000),
    ]

    private static func code(_ name: String = "p", _ edit: (inout [Draft]) -> Void = { _ in }) -> PipelineError.Code? {
        var drafts = good
        edit(&drafts)
        do {
            _ = try Pipeline(validating: name, stages: drafts)
            return nil
        } catch {
            #expect(error.description.contains("'\(name)'"))
            return error.code
        }
    }

    @Test func takesAGoodOne() throws {
        let pipeline = try Pipeline(validating: "hunyuan3d", stages: Self.good)
        #expect(pipeline.stages.map(\.phase) == [.analyzing, .generating, .postProcessing])
        #expect(abs(pipeline.stages.map(\.weight).reduce(0, +) - 1) < 1e-12)
        #expect(pipeline.firstPhase == .analyzing)
        #expect(try Pipeline(validating: "generic", stages: []).stages.isEmpty)
    }

    @Test func saysWhatIsWrong() {
        #expect(Self.code("") == .emptyName)
        #expect(Self.code("Comic Book") == .illegalName)
        #expect(Self.code(String(repeating: "a", count: 65)) == .nameTooLong)
        #expect(Self.code { $0[1].name = "" } == .emptyName)
        #expect(Self.code { $0[1].name = "sh{pe" } == .illegalName)
        #expect(Self.code { $0[1].name = String(repeating: "a", count: 65) } == .nameTooLong)
        #expect(Self.code { $0[1].name = "mesh_export" } == .duplicateStage)
        #expect(Self.code { $0[1].phase = "RENDERING" } == .unknownPhase)
        #expect(Self.code { $0[1].phase = "QUEUED" } == .illegalPhase)
        #expect(Self.code { $0[1].phase = "COMPLETE" } == .illegalPhase)
        #expect(Self.code { $0[2].phase = "ANALYZING" } == .phaseBackwards)
        #expect(Self.code { $0[0].weight = 0 } == .weightNotPositive)
        #expect(Self.code { $0[0].weight = -0.05 } == .weightNotPositive)
        #expect(Self.code { $0[0].weight = .nan } == .weightNotPositive)
        #expect(Self.code { $0[0].weight = .infinity } == .weightNotPositive)
        #expect(Self.code { $0[0].weight = nil } == .weightMissing)
        #expect(Self.code { $0[0].weight = 0.06 } == .weightSum)
        #expect(Self.code { $0[0].weight = 0.0505 } == nil)
        #expect(Self.code { $0[0].expectedMs = 0 } == .expectedNotPositive)
        #expect(Self.code { drafts in drafts = (0..<65).map { Draft(name: "s\($0)", phase: "GENERATING") } } == .tooManyStages)
    }

    @Test func makesWeightsWhenTheAuthorGivesNone() throws {
        let timed = try Pipeline(
            validating: "p",
            stages: [
                Draft(name: "a", phase: "GENERATING", expectedMs: 1000), Draft(name: "b", phase: "GENERATING", expectedMs: 3000),
            ]
        )
        #expect(timed.stages.map(\.weight) == [0.25, 0.75])
        let plain = try Pipeline(
            validating: "p",
            stages: [Draft(name: "a", phase: "GENERATING", expectedMs: 1000), Draft(name: "b", phase: "GENERATING")]
        )
        #expect(plain.stages.map(\.weight) == [0.5, 0.5])
    }
}
