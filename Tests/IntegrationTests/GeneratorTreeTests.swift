import Glibc
import TestSupport
import Testing

/// What becomes of a generator, and of everything that it started, when its worker is gone.
@Suite(.serialized, .timeLimit(.minutes(3))) struct GeneratorTreeTests {
    private static let names = ["leader", "stubborn", "daemon", "threaded"]

    private func processes(in path: String) -> [pid_t]? {
        let found = Self.names.compactMap { name -> pid_t? in
            guard let file = fopen("\(path)/\(name)", "r") else { return nil }
            defer { fclose(file) }
            var pid: pid_t = 0
            return withUnsafeMutablePointer(to: &pid, { withVaList([$0]) { vfscanf(file, "%d", $0) } }) == 1 ? pid : nil
        }
        return found.count == Self.names.count ? found : nil
    }

    private func isAlive(_ pid: pid_t) -> Bool { kill(pid, 0) == 0 }

    @Test(arguments: [[], ["--pty"]]) func aKilledWorkerTakesTheWholeTreeWithIt(_ flags: [String]) async throws {
        try await Deployment.with { deployment in
            let path = deployment.directory + "/family"
            mkdir(path, 0o700)
            let command = ["python3", Deployment.file("Tests/Fixtures/generators/family.py"), path, "300"]
            let worker = try await deployment.worker(command: command, flags: flags)
            _ = try await deployment.submit("a")
            let tree = try await eventually(within: .seconds(60), "the family runs", produce: { processes(in: path) })
            #expect(tree.allSatisfy(isAlive))
            worker.kill()
            let start = ContinuousClock.now
            try await eventually(within: .seconds(30), "all of \(tree) are gone") { !tree.contains(where: isAlive) }
            print("the tree of a killed worker was gone after \(ContinuousClock.now - start)")
        }
    }
}
