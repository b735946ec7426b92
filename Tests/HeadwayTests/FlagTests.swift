import ArgumentParser
import Testing

@testable import headway

struct FlagTests {
    /// Every long option of every command.
    private static func flags() -> Set<String> {
        var flags: Set<String> = []
        // A measurement is a call of its own, not part of how a service is set up.
        for command in Headway.configuration.subcommands where command != BenchCommand.self && command != ReplayCommand.self {
            for word in command.helpMessage(columns: 10_000).split(whereSeparator: { " ,:[]<>()\n".contains($0) }) {
                if word.hasPrefix("--"), word.count > 2 { flags.insert(String(word)) }
            }
        }
        return flags
    }

    /// What an operator does once to a queue is said on the command line alone: a variable that was left in the environment must
    /// not purge or limit anything. Nor may two runs get one id.
    private static let once: Set<String> = [
        "--off", "--wait", "--ready", "--delayed", "--parked", "--dead", "--yes", "--job", "--code", "--max-depth", "--max-running",
        "--tenant-max-queued", "--tenant-max-running", "--tenant", "--weight", "--max-queued", "--fix", "--replace", "--job-name",
    ]

    @Test func everyFlagIsASetting() {
        let known = Set(Settings.all.compactMap(\.flag))
        #expect(known.isDisjoint(with: Self.once))
        let unknown = Self.flags().subtracting(known).subtracting(Self.once).subtracting(["--help", "--version", "--config"])
        #expect(unknown.isEmpty, "flags without environment name and key: \(unknown.sorted())")
    }

    @Test func everySettingsFlagExists() {
        let flags = Self.flags()
        for info in Settings.all {
            guard let flag = info.flag, flag != "--" else { continue }
            #expect(flags.contains(flag), "\(info.key)")
        }
    }

    @Test func theCommandAfterTheDashesIsLeftAlone() throws {
        let command = try #require(
            try Headway.parseAsRoot(["worker", "--queue", "a", "--queue", "b", "--", "python3", "x.py", "--queue", "c", "--json"])
                as? WorkerCommand
        )
        #expect(command.queues == ["a", "b"])
        #expect(command.command == ["python3", "x.py", "--queue", "c", "--json"])
    }

    @Test func flagsBeforePositionalsDoNotSwallowThem() throws {
        let command = try #require(try Headway.parseAsRoot(["watch", "--json", "J1", "J2"]) as? WatchCommand)
        #expect(command.jobs == ["J1", "J2"] && command.json)
    }

    @Test func paramsWithCommasStayWhole() throws {
        let json = #"{"a":[1,2],"b":"x,y"}"#
        let command = try #require(try Headway.parseAsRoot(["submit", "--params", json, "--input", "a", "--input", "b"]) as? SubmitCommand)
        #expect(command.params == json && command.inputs == ["a", "b"])
    }

    @Test func onlyLoopbackNeedsNoPermission() {
        for host in ["127.0.0.1", "127.8.8.8", "::1", "localhost"] { #expect(GatewayRole.isLoopback(host)) }
        for host in ["0.0.0.0", "::", "10.0.0.1", "127.evil.example", "localhost.example", "example.com"] {
            #expect(!GatewayRole.isLoopback(host))
        }
    }
}
