import JobStore
import Synchronization
import TestSupport
import Testing

@testable import WorkerRuntime

/// What `nvidia-smi --query-gpu=index,uuid,memory.total,memory.used,name --format=csv,noheader,nounits` prints.
@Suite(.timeLimit(.minutes(1))) struct GPUListTests {
    private static let eight =
        (0..<8).map { "\($0), GPU-0000000\($0)-1111-2222-3333-444444444444, 143771, \($0 * 100), NVIDIA H200" }
        .joined(separator: "\n") + "\n"

    @Test func oneAndSeveralAreRead() {
        let one = GPUList.parse("0, GPU-5a3c1f0e-0d1b-4c7e-9b1a-2f3e4d5c6b7a, 24564, 1024, NVIDIA GeForce RTX 4090\n")
        #expect(one == [WorkerRecord.GPU(name: "NVIDIA GeForce RTX 4090", memoryMB: 24564, memoryUsedMB: 1024)])
        #expect(GPUList.parse(Self.eight).map(\.memoryUsedMB) == (0..<8).map { $0 * 100 })
        let mixed = "0, GPU-a, 81559, 4, NVIDIA A100-SXM4-80GB\r\n1, GPU-b, 15360, 0, Tesla T4\r\n"
        #expect(GPUList.parse(mixed).map(\.name) == ["NVIDIA A100-SXM4-80GB", "Tesla T4"])
    }

    @Test(arguments: ["[N/A]", "[Not Supported]", "[Unknown Error]", "[Insufficient Permissions]", "N/A", "", "-5", "12 MiB"])
    func aMemoryThatIsNotToldIsUnknown(text: String) {
        let gpus = GPUList.parse("0, GPU-a, \(text), \(text), NVIDIA GB10\n")
        #expect(gpus == [WorkerRecord.GPU(name: "NVIDIA GB10", memoryMB: nil, memoryUsedMB: nil)])
    }

    @Test(arguments: [
        "", "\n\n", "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed.\n",
        "Failed to initialize NVML: Driver/library version mismatch\n", "index, uuid, memory.total [MiB], memory.used [MiB], name\n",
        "0, GPU-a, 1\n",
        "0, GPU-a, 1, 1, \n",
    ])
    func whatIsNoGPUIsLeftOut(text: String) {
        #expect(GPUList.parse(text).isEmpty)
    }

    @Test func aProcessBoundToSomeShowsThose() {
        func used(_ visible: String?) -> [Int] { GPUList.parse(Self.eight, visible: visible).map { ($0.memoryUsedMB ?? 0) / 100 } }
        #expect(used(nil) == Array(0..<8))
        #expect(used("3") == [3])
        #expect(used("5, 1") == [5, 1])
        #expect(used("GPU-00000006") == [6])
        #expect(used("2,GPU-00000007-1111") == [2, 7])
        // As CUDA does: nothing from the first that names no device on.
        #expect(used("") == [])
        #expect(used("-1") == [])
        #expect(used("NoDevFiles") == [])
        #expect(used("1,99,2") == [1])
        #expect(used("MIG-GPU-0/1/0") == [])
    }

    @Test func hostileOutputIsBounded() {
        let many = (0..<1000).map { "\($0), GPU-x, 1, 1, \(String(repeating: "n", count: 500))\u{1b}[2J" }.joined(separator: "\n")
        let gpus = GPUList.parse(many)
        #expect(gpus.count == 32)
        #expect(gpus.allSatisfy { $0.name.utf8.count <= 100 })
        for seed in 0..<2000 {
            var random = SeededGenerator(seed)
            let alphabet = Array("0123456789, GPU-[N/A]\n\r\t\"{}\u{0}é")
            let text = String((0..<Int.random(in: 0...200, using: &random)).compactMap { _ in alphabet.randomElement(using: &random) })
            for gpu in GPUList.parse(text) { #expect(gpu.name.unicodeScalars.allSatisfy { $0.value >= 0x20 }) }
        }
    }

    // MARK: Running the tool

    private func run(_ script: String, limit: Duration = .seconds(30), bytes: Int = 1000) async throws -> ShortCommand.Outcome {
        let outcome = Mutex<ShortCommand.Outcome?>(nil)
        ShortCommand.start("/bin/sh", ["-c", script], environment: ["A=b"], limit: limit, bytes: bytes) { result in
            outcome.withLock { $0 = result }
        }
        return try await eventually(within: .seconds(60), "its end") { outcome.withLock { $0 } }
    }

    @Test func whatAToolPrintsComesBack() async throws {
        #expect(try await run("echo $A; echo unseen >&2; cat; echo c") == .printed("b\nc\n"))
        #expect(try await run("echo a; exit 9") == .failed)
        #expect(try await run("kill -9 $$") == .failed)
        #expect(try await run("yes", bytes: 5000) == .failed)
        let missing = Mutex<ShortCommand.Outcome?>(nil)
        ShortCommand.start("/no/such/nvidia-smi", [], environment: [], limit: .seconds(30), bytes: 10) { result in
            missing.withLock { $0 = result }
        }
        #expect(try await eventually(within: .seconds(60), "its end") { missing.withLock { $0 } } == .failed)
    }

    @Test func aToolThatHangsIsGivenUp() async throws {
        #expect(try await run("trap '' TERM; sleep 300 & sleep 300", limit: .milliseconds(200)) == .failed)
        try await eventually(within: .seconds(30), "no zombie") { zombies() == 0 }
    }
}
