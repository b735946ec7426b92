import Glibc
import TestSupport
import Testing

/// The main job as a newcomer runs it: `headway dev`, a photograph, a model.
@Suite(.serialized, .timeLimit(.minutes(4))) struct MainJobTests {
    private static let photo = Deployment.file("examples/relief/photos")

    private func firstPhoto() throws -> String {
        guard let directory = opendir(Self.photo) else { throw TestSupportError(.process, "no photographs in \(Self.photo)") }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            names.append(withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        guard let name = names.filter({ $0.hasSuffix(".jpg") }).min() else { throw TestSupportError(.process, "no .jpg in \(Self.photo)") }
        return Self.photo + "/" + name
    }

    private func dev(_ directory: String, _ name: String = "dev", _ flags: [String] = []) throws -> HeadwayProcess {
        let path = "\(directory)/\(name)"
        return HeadwayProcess(
            process: try ChildProcess(
                "/bin/sh",
                [
                    "-c", "cd '\(Deployment.file(""))' && exec \"$0\" \"$@\"", try Deployment.binary, "dev", "--listen", "127.0.0.1:0",
                    "--data", "\(directory)/data",
                ] + flags,
                outputPath: path + ".out",
                errorPath: path + ".err"
            ),
            outputPath: path + ".out",
            errorPath: path + ".err"
        )
    }

    private func run(_ directory: String, _ name: String, _ arguments: [String]) throws -> HeadwayProcess {
        let path = "\(directory)/\(name)"
        return HeadwayProcess(
            process: try ChildProcess(try Deployment.binary, arguments, outputPath: path + ".out", errorPath: path + ".err"),
            outputPath: path + ".out",
            errorPath: path + ".err"
        )
    }

    @Test func aPhotographBecomesAModel() async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-main")
        defer { removeDirectory(directory) }
        let dev = try dev(directory)
        let url = String(try await dev.line(startingWith: "listening ").dropFirst("listening ".count))
        let submit = try run(
            directory,
            "submit",
            [
                "submit", "--gateway", url, "--queue", "relief", "--pipeline", "relief", "--params", "{\"size\":96,\"sweeps\":120}",
                "--input",
                try firstPhoto(), "--watch", "--json", "--output", "\(directory)/result",
            ]
        )
        #expect(try await submit.process.waitForExit(within: .seconds(90)) == .status(0), "\(submit.errors)\n\(dev.errors)")
        let events = try WireEvent.lines(submit.output)
        expectTruthful(events, end: "complete")
        #expect(events.contains { $0.type == "stage" || $0.type == "phase" })
        let model = "\(directory)/result/relief.glb"
        let check = try checkModel(directory, model)
        #expect(try await check.process.waitForExit(within: .seconds(60)) == .status(0), "\(check.errors)")
        dev.process.signal(SIGTERM)
        #expect(try await dev.process.waitForExit(within: .seconds(20)) == .status(0))
        #expect(try Self.redisServers(in: directory) == 0, "headway dev left its redis-server behind")
    }

    /// Parses the model with the example's own checker: closed mesh, normals, indices.
    private func checkModel(_ directory: String, _ model: String) throws -> HeadwayProcess {
        let path = "\(directory)/check"
        return HeadwayProcess(
            process: try ChildProcess(
                Deployment.file(".venv/bin/python3"),
                [Deployment.file("examples/relief/tests/glb_check.py"), model],
                outputPath: path + ".out",
                errorPath: path + ".err"
            ),
            outputPath: path + ".out",
            errorPath: path + ".err"
        )
    }

    @Test func aCorruptPhotographFailsWithWhatToChange() async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-main")
        defer { removeDirectory(directory) }
        let dev = try dev(directory)
        let url = String(try await dev.line(startingWith: "listening ").dropFirst("listening ".count))
        // A JPEG's first bytes, then nonsense: the gateway takes it, the generator does not.
        let path = "\(directory)/broken.jpg"
        let bytes: [UInt8] = [0xff, 0xd8, 0xff, 0xe0] + (0..<2000).map { UInt8($0 % 251) }
        let file = fopen(path, "w")
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
        let submit = try run(
            directory,
            "submit",
            ["submit", "--gateway", url, "--queue", "relief", "--pipeline", "relief", "--input", path, "--watch", "--json"]
        )
        #expect(try await submit.process.waitForExit(within: .seconds(60)) == .status(1), "\(submit.errors)")
        #expect(submit.output.contains("bad_image"))
        dev.process.signal(SIGTERM)
        try await dev.process.waitForExit(within: .seconds(20))
    }

    @Test func aKilledDevLeavesNothingThatHindersTheNext() async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-main")
        defer { removeDirectory(directory) }
        let first = try dev(directory, "first", ["--no-worker"])
        _ = try await first.line(startingWith: "listening ")
        first.kill()
        let second = try dev(directory, "second", ["--no-worker"])
        _ = try await second.line(startingWith: "listening ")
        second.process.signal(SIGTERM)
        #expect(try await second.process.waitForExit(within: .seconds(20)) == .status(0), "\(second.errors)")
        #expect(try Self.redisServers(in: directory) == 0)
    }

    /// How many processes have a command line that names this directory and redis-server.
    private static func redisServers(in directory: String) throws -> Int {
        guard let processes = opendir("/proc") else { throw TestSupportError(.system, "/proc cannot be read") }
        defer { closedir(processes) }
        var count = 0
        while let entry = readdir(processes) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            guard name.allSatisfy(\.isNumber), let file = fopen("/proc/\(name)/environ", "r") else { continue }
            fclose(file)
            guard let link = realpath("/proc/\(name)/cwd", nil) else { continue }
            let cwd = String(cString: link)
            free(link)
            if cwd.hasPrefix(directory), commandName(name) == "redis-server" { count += 1 }
        }
        return count
    }

    private static func commandName(_ pid: String) -> String {
        guard let file = fopen("/proc/\(pid)/comm", "r") else { return "" }
        defer { fclose(file) }
        var buffer = [CChar](repeating: 0, count: 64)
        guard fgets(&buffer, 64, file) != nil else { return "" }
        return String(decoding: buffer.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
