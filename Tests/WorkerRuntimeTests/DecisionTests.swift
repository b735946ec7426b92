import NIOPosix
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

@Suite(.timeLimit(.minutes(5))) struct DecisionTests {
    private static let limits = RunLimits(runtimeMs: 50, stallMs: 70, quotaBytes: 90)
    private static let failure = BackendError(code: "generator_failed", message: "m", isRecoverable: true)

    @Test func theEndFollowsFromWorkAndOrder() {
        let outcomes: [WorkOutcome] = [.done(resultJSON: "{}"), .failed(Self.failure), .stopped]
        for outcome in outcomes {
            #expect(EndAction.decide(outcome, stop: .leaseLost, limits: Self.limits) == .nothing)
        }
        for stop in [nil, StopReason.shutdown, .timeout, .stalled, .quotaExceeded, .cancelled] {
            #expect(EndAction.decide(.done(resultJSON: "{}"), stop: stop, limits: Self.limits) == .complete(resultJSON: "{}"))
        }
        #expect(EndAction.decide(.stopped, stop: .cancelled, limits: Self.limits) == .acknowledgeCancel)
        #expect(EndAction.decide(.failed(Self.failure), stop: .cancelled, limits: Self.limits) == .acknowledgeCancel)
        #expect(EndAction.decide(.failed(Self.failure), stop: nil, limits: Self.limits) == .fail(Self.failure))
        #expect(EndAction.decide(.failed(Self.failure), stop: .shutdown, limits: Self.limits) == .fail(Self.failure))
        #expect(EndAction.decide(.stopped, stop: .shutdown, limits: Self.limits) == .release)
        #expect(EndAction.decide(.stopped, stop: nil, limits: Self.limits) == .release)
        // What never began costs no attempt, but a cancel is a cancel, and a limit a limit.
        let unstarted = BackendError.generatorNotFound("x", "it is not in PATH")
        #expect(EndAction.decide(.failed(unstarted), stop: nil, limits: Self.limits) == .release)
        #expect(EndAction.decide(.failed(unstarted), stop: .shutdown, limits: Self.limits) == .release)
        #expect(EndAction.decide(.failed(unstarted), stop: .cancelled, limits: Self.limits) == .acknowledgeCancel)
        #expect(EndAction.decide(.failed(.system("no thread", errno: 11)), stop: nil, limits: Self.limits) == .release)
        guard case .fail(let error) = EndAction.decide(.stopped, stop: .timeout, limits: Self.limits) else {
            Issue.record("a job over its time does not fail")
            return
        }
        #expect(error.code == "timeout")
        #expect(error.message.contains("50"))
        for (stop, code, number) in [(StopReason.stalled, "stalled", "70"), (.quotaExceeded, "quota_exceeded", "90")] {
            for outcome in [WorkOutcome.stopped, .failed(Self.failure)] {
                guard case .fail(let error) = EndAction.decide(outcome, stop: stop, limits: Self.limits) else {
                    Issue.record("\(stop) is no failure")
                    continue
                }
                #expect(error.code == code)
                #expect(error.message.contains(number))
            }
        }
    }

    @Test func theWeightiestOrderWins() {
        let order = StopOrder()
        #expect(order.reason == nil)
        order.give(.shutdown)
        order.give(.leaseLost)
        order.give(.cancelled)
        #expect(order.reason == .leaseLost)
    }

    @Test func anOrderGivenBeforeSomebodyListensStillActs() async {
        let order = StopOrder()
        order.give(.timeout)
        await confirmation { acted in order.whenGiven { acted() } }
    }

    @Test func delaysGrowAndStayInBounds() {
        for seed in 0..<500 {
            var random = SeededGenerator(seed)
            var backoff = Backoff(100...5000)
            for round in 0..<20 {
                let delay = backoff.next(random: .random(in: 0..<1, using: &random))
                #expect(delay > .zero && delay <= .milliseconds(min(100 << round, 5000) + 1))
            }
            backoff.reset()
            #expect(backoff.next(random: 0.999) <= .milliseconds(101))
        }
    }

    @Test func inputsAreReadAndChecked() throws {
        #expect(try JobInput.list(paramsJSON: #"{"input":"in","i":"inputss"}"#).isEmpty)
        #expect(try JobInput.list(paramsJSON: #"{"\u0069nputs":[{"upload":"u1"}]}"#).map(\.upload) == ["u1"])
        #expect(try JobInput.list(paramsJSON: "{}").isEmpty)
        #expect(
            try JobInput.list(paramsJSON: #"{"prompt":"x","inputs":[{"upload":"u1","name":"a b.jpg"},{"upload":"u2"}]}"#) == [
                JobInput(upload: "u1", name: "a b.jpg"), JobInput(upload: "u2", name: "u2"),
            ]
        )
        for params in [
            #"{"inputs":{}}"#, #"{"inputs":[7]}"#, #"{"inputs":[{"name":"a"}]}"#, #"{"inputs":[{"upload":"../x"}]}"#,
            #"{"inputs":[{"upload":""}]}"#,
            #"{"inputs":[{"upload":"u","name":"../../etc/passwd"}]}"#, #"{"inputs":[{"upload":"u","name":".."}]}"#,
            #"{"inputs":[{"upload":"u","name":"a\u0000b"}]}"#, #"{"inputs":[{"upload":"u","name":""}]}"#,
            #"{"inputs":[{"upload":"u","name":"a"},{"upload":"v","name":"a"}]}"#,
            "{\"inputs\":[\((0..<65).map { "{\"upload\":\"u\($0)\"}" }.joined(separator: ","))]}",
        ] {
            do {
                _ = try JobInput.list(paramsJSON: params)
                Issue.record("taken: \(params)")
            } catch {
                #expect(error.code == "input_unavailable")
                #expect(!error.isRecoverable)
            }
        }
    }

    @Test func theResultNamesTheFilesAndKeepsWhatTheScriptSaid() {
        let file = OutputFile(name: "a \"b\".glb", path: "/x", bytes: 12)
        let (json, isCut) = JobResult.compose(
            files: [file],
            url: { "/f/" + FileName.percentEncoded($0.name) },
            ownJSON: #"{ "files": 1, "vertices":[1, 2] }"#
        )
        #expect(
            json
                == #"{"files":[{"name":"a \"b\".glb","bytes":12,"content_type":"model/gltf-binary","url":"/f/a%20%22b%22.glb"}],"vertices":[1, 2]}"#
        )
        #expect(!isCut)
        #expect(JobResult.compose(files: [], url: { _ in nil }, ownJSON: nil).json == #"{"files":[]}"#)
        // Whatever stands between the members, and however a name is spelled.
        for own in [
            #"{"a":1,"b":[2, 3]}"#, #"{ "a":1,"b":[2, 3]}"#, "{\"a\":1,\n\"b\":[2, 3]}", #"{"a":1,"b":[2, 3] }"#,
            #"{"a":1,"files":[7],"b":[2, 3]}"#, #"{"\u0061":1,"b":[2, 3]}"#, #"{"a":1,"b":[2, 3],"\u0066iles":null}"#,
        ] {
            let json = JobResult.compose(files: [], url: { _ in nil }, ownJSON: own).json
            #expect(json == #"{"files":[],"a":1,"b":[2, 3]}"#, "\(own)")
        }
        for own in ["{}", "{ }", "[1]", #"{"a":1"#, #"{"a":}"#, #"{"a":1}}"#, ""] {
            #expect(JobResult.compose(files: [], url: { _ in nil }, ownJSON: own).json == #"{"files":[]}"#, "\(own)")
        }
        let big = JobResult.compose(files: [file], url: { _ in nil }, ownJSON: "{\"x\":\"\(String(repeating: "x", count: 70_000))\"}")
        #expect(big.isCut)
        #expect(big.json.contains("a \\\"b\\\".glb"))
        let many = (0..<256).map { OutputFile(name: String(repeating: "n", count: 250) + "\($0)", path: "/x", bytes: 1) }
        #expect(JobResult.compose(files: many, url: { _ in nil }, ownJSON: nil).json == #"{"files":[],"file_count":256}"#)
    }

    @Test(arguments: ["a/b", "..", ".", "", "a\\b", "a\nb", String(repeating: "x", count: 256)])
    func unsafeFileNamesAreRefused(name: String) {
        #expect(!FileName.isSafe(name))
    }

    @Test func configurationSaysWhatToChange() {
        func problem(_ edit: (inout WorkerConfiguration) -> Void) -> String? {
            var configuration = WorkerConfiguration(name: "w1", queues: ["gpu"], workDirectory: "/tmp/x")
            edit(&configuration)
            do {
                try configuration.validate()
                return nil
            } catch {
                return error.message
            }
        }
        #expect(problem { _ in } == nil)
        #expect(problem { $0.name = "a/b" }?.contains("name") == true)
        #expect(problem { $0.name = ".." }?.contains("name") == true)
        #expect(problem { $0.queues = [] }?.contains("queues") == true)
        #expect(problem { $0.queues = ["a", "a"] }?.contains("queues") == true)
        #expect(problem { $0.concurrency = 0 }?.contains("concurrency") == true)
        #expect(problem { $0.workDirectory = "" }?.contains("work directory") == true)
        #expect(problem { $0.updatesPerSecond = 0 }?.contains("rate") == true)
        #expect(problem { $0.gatewayURL = "localhost:80" }?.contains("gateway") == true)
    }

    @Test func aBellWakesOnceForAnyNumberOfRings() async throws {
        let bell = Doorbell(MultiThreadedEventLoopGroup.singleton.next())
        bell.ring()
        bell.ring()
        let start = ContinuousClock.now
        await bell.wait(atMost: .seconds(30))
        await bell.wait(atMost: .milliseconds(50))
        let took = ContinuousClock.now - start
        #expect(took >= .milliseconds(45) && took < .seconds(20))
        for _ in 0..<200 {
            async let waiting: Void = bell.wait(atMost: .seconds(30))
            bell.ring()
            await waiting
        }
        let cancelled = Task { await bell.wait(atMost: .seconds(30)) }
        cancelled.cancel()
        await cancelled.value
        #expect(ContinuousClock.now - start < .seconds(20))
    }

    @Test func aWorkDirectoryBelongsToOneWorkerAndIsClearedOfDeadOnes() async throws {
        try await withTemporaryDirectory { root in
            do {
                let dead = try WorkerDirectory(name: "dead", in: root, removesLeftovers: false)
                try JobDirectory(path: dead.path + "/job-a-1").make()
            }
            let living = try WorkerDirectory(name: "w1", in: root, removesLeftovers: false)
            #expect(throws: WorkerError.self) { try WorkerDirectory(name: "w1", in: root, removesLeftovers: false) }
            #expect(Directories.entries(root) == ["dead", "w1"])
            let other = try WorkerDirectory(name: "w2", in: root, removesLeftovers: true)
            #expect(Directories.entries(root) == ["w1", "w2"])
            other.removeIfEmpty()
            living.removeIfEmpty()
            #expect(Directories.entries(root) == [])
            #expect(throws: WorkerError.self) { try WorkerDirectory(name: "w", in: "/proc/nope", removesLeftovers: false) }
        }
    }
}
