import Glibc
import TestSupport
import Testing

@testable import headway

/// The program as a process.
enum Program {
    struct Outcome {
        let exit: TestSupport.ChildProcess.Exit
        let output: String
        let errors: String

        var lines: [String] { output.split(separator: "\n").map(String.init) }
    }

    /// The built program lies beside the test bundle.
    static func path() throws -> String {
        let link = try #require(realpath("/proc/self/exe", nil))
        defer { free(link) }
        let path = String(cString: link)
        return path[..<(path.lastIndex(of: "/") ?? path.startIndex)] + "/headway"
    }

    /// Runs it to its end.
    static func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Outcome {
        let directory = try makeTemporaryDirectory(prefix: "hw-cli")
        defer { removeDirectory(directory) }
        let (out, err) = ("\(directory)/out", "\(directory)/err")
        let process = try TestSupport.ChildProcess(
            try path(),
            arguments,
            environment: environment,
            outputPath: out,
            errorPath: err
        )
        let exit = try await process.waitForExit(within: .seconds(60))
        return Outcome(exit: exit, output: try TextFile.read(out, limit: 1 << 20), errors: try TextFile.read(err, limit: 1 << 20))
    }
}
