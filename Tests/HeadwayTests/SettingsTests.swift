import TestSupport
import Testing

@testable import headway

struct SettingsTests {
    private func reader(
        _ flags: [SettingsReader.Flag] = [],
        environment: [String: String] = [:],
        yaml: String? = nil
    ) throws -> SettingsReader {
        try SettingsReader(flags: flags, environment: environment, file: yaml.map { try SettingsFile(path: "h.yaml", yaml: $0) })
    }

    /// The message of the error `body` throws.
    private func message(_ body: () throws -> Void) -> String {
        do {
            try body()
            return "no error"
        } catch {
            return "\(error)"
        }
    }

    @Test func aFlagWinsOverEnvironmentOverFileOverDefault() throws {
        let yaml = "gateway:\n  listen: 127.0.0.1:3\n"
        let environment = ["HEADWAY_GATEWAY_LISTEN": "127.0.0.1:2", "PATH": "/bin", "HEADWAY_JOB_ID": "J"]
        let flag = SettingsReader.Flag(Settings.listen, "127.0.0.1:1")
        #expect(try reader([flag], environment: environment, yaml: yaml).value(Settings.listen).port == 1)
        #expect(try reader(environment: environment, yaml: yaml).value(Settings.listen).port == 2)
        #expect(try reader(yaml: yaml).value(Settings.listen).port == 3)
        #expect(try reader().value(Settings.listen).port == 8080)
        #expect(try reader().optional(Settings.listen) == nil)
    }

    @Test func everySourceReachesEverySetting() throws {
        for info in Settings.all where info.key != Settings.workerCommand.info.key {
            let sample = Self.sample(info)
            let environment = [info.environmentName: sample]
            #expect(throws: Never.self, "\(info.key)") { try reader(environment: environment) }
            let parts = info.key.split(separator: ".")
            let value = info.isList ? "[\(sample)]" : "\"\(sample)\""
            let yaml = parts.count == 2 ? "\(parts[0]):\n  \(parts[1]): \(value)\n" : "\(parts[0]): \(value)\n"
            let file = try SettingsFile(path: "h.yaml", yaml: yaml)
            #expect(file.values[info.key]?.value == (info.isList ? .list([sample]) : .scalar(sample)))
        }
    }

    /// A value that a setting takes, other than its default.
    private static func sample(_ info: SettingInfo) -> String {
        let candidates = ["true", "7", "7s", "debug", "json", "127.0.0.1:99", "redis://h", "http://h", "a-name", "{}", "off"]
        return candidates.first { info.isValid(info.isList ? .list([$0]) : .scalar($0)) } ?? "x"
    }

    @Test func everyDefaultIsAllowed() {
        for info in Settings.all {
            if let value = info.defaultValue { #expect(info.isValid(value), "\(info.key)") }
        }
    }

    @Test func keysAndEnvironmentNamesAreUnique() {
        #expect(Set(Settings.all.map(\.key)).count == Settings.all.count)
        #expect(Set(Settings.all.map(\.environmentName)).count == Settings.all.count)
        #expect(Settings.foreignEnvironmentNames.isDisjoint(with: Settings.all.map(\.environmentName)))
    }

    @Test func anUnknownKeyNamesFileLineAndWhatIsAllowed() {
        let text = message { _ = try reader(yaml: "gateway:\n  listen: 127.0.0.1:1\n  lisen: 127.0.0.1:2\n") }
        #expect(text.hasPrefix("h.yaml:3: unknown key gateway.lisen; did you mean gateway.listen? allowed here: "))
        #expect(text.contains("insecure"))
    }

    @Test(arguments: [
        ("gateway: 5", "h.yaml:1: gateway must be a mapping"),
        ("- a", "h.yaml:1: the file must be a mapping"),
        ("gateway:\n  listen: [a, b]", "h.yaml:2: gateway.listen must be HOST:PORT"),
        ("gateway:\n  listen: 8080", "h.yaml:2: gateway.listen: \"8080\" is not allowed; it must be HOST:PORT"),
        ("worker:\n  queues:\n    - gpu\n    - GPU", "h.yaml:3: worker.queues: [gpu, GPU] is not allowed; it must be a queue name"),
        ("worker:\n  queues:\n    - { a: 1 }", "h.yaml:3: worker.queues: each item must be"),
        ("worker:\n  concurrency: many", "h.yaml:2: worker.concurrency: \"many\" is not allowed; it must be a whole number from 1 to 256"),
        ("worker:\n  concurrency:", "h.yaml:2: worker.concurrency: \"\" is not allowed"),
        ("worker:\n  shutdown_grace: 30", "h.yaml:2: worker.shutdown_grace: \"30\" is not allowed; it must be a duration"),
        ("worker: {update_rate: nan}", "h.yaml:1: worker.update_rate: \"nan\" is not allowed"),
        ("gateway:\n  insecure: yes please", "h.yaml:2: gateway.insecure"),
        ("nonsense: 1", "h.yaml:1: unknown key nonsense"),
        ("gateway: {listen: 127.0.0.1:1", "h.yaml: not valid YAML"),
        ("gateway:\n  listen: a\n  listen: b", "h.yaml: not valid YAML"),
        ("a: 1\n---\nb: 2", "h.yaml: not valid YAML"),
        ("? [a, b]\n: 1", "h.yaml:1: a key must be plain text"),
    ])
    func badFilesAreRefusedWithTheirPlace(_ yaml: String, _ expected: String) {
        let text = message { _ = try reader(yaml: yaml) }
        #expect(text.hasPrefix(expected), "\(text)")
        #expect(!text.contains("\n"))
    }

    @Test func anEmptyFileSetsNothing() throws {
        for yaml in ["", "# only a comment\n", "---\n"] {
            #expect(try SettingsFile(path: "h.yaml", yaml: yaml).values.isEmpty)
        }
    }

    @Test(arguments: [
        ("HEADWAY_GATEWAY_LISTN", "did you mean HEADWAY_GATEWAY_LISTEN?"), ("HEADWAY_REDIS", "did you mean HEADWAY_REDIS_"),
        ("HEADWAY_WHATEVER_ELSE", "is not a setting"), ("HEADWAY_WORKER_COMMAND", "cannot be given by the environment"),
    ])
    func unknownEnvironmentNamesAreErrors(_ name: String, _ expected: String) {
        let text = message { _ = try reader(environment: [name: "x"]) }
        #expect(text.contains(name) && text.contains(expected), "\(text)")
    }

    @Test func aBadValueNamesItsSource() {
        #expect(
            message { _ = try reader(environment: ["HEADWAY_WORKER_CONCURRENCY": "0"]) }
                .hasPrefix("HEADWAY_WORKER_CONCURRENCY: \"0\" is not allowed; it must be a whole number")
        )
        #expect(
            message { _ = try reader([.init(Settings.concurrency, "0")]).value(Settings.concurrency) }
                .hasPrefix("--concurrency: \"0\" is not allowed")
        )
        #expect(
            message { _ = try reader().value(Settings.workerQueues) }
                .hasPrefix("--queue (or HEADWAY_WORKER_QUEUES or worker.queues in the settings file) is needed")
        )
    }

    @Test func secretsAreNeverRepeated() throws {
        let environment = ["HEADWAY_REDIS_PASSWORD": "hunter2", "HEADWAY_REDIS_URL": "redis://me:hunter3@host"]
        let text = SettingsDocument.text(try reader(environment: environment))
        #expect(!text.contains("hunter"))
        #expect(text.contains("redis://me:***@host"))
        #expect(Settings.redisPassword.info.flag == nil)
    }

    @Test func listsInTheEnvironmentAreSeparatedByCommas() throws {
        let settings = try reader(environment: ["HEADWAY_WORKER_QUEUES": "gpu, cpu,io", "HEADWAY_WORKER_NAME": ""])
        #expect(try settings.value(Settings.workerQueues) == ["gpu", "cpu", "io"])
        #expect(try settings.optional(Settings.workerName) == nil)
    }

    @Test func theDocumentationIsAValidSettingsFile() throws {
        let text = SettingsDocument.text(try reader())
        let file = try SettingsFile(path: "h.yaml", yaml: text)
        for info in Settings.all {
            #expect(text.contains(info.environmentName))
            #expect(file.values[info.key]?.value == info.defaultValue, "\(info.key)")
        }
    }

    @Test(arguments: [
        ("127.0.0.1:8080", "127.0.0.1", 8080), ("localhost:0", "localhost", 0), ("[::1]:65535", "::1", 65535), ("0.0.0.0:1", "0.0.0.0", 1),
    ])
    func listenAddressesAreRead(_ text: String, _ host: String, _ port: Int) {
        let address = ListenAddress(text)
        #expect(address?.host == host && address?.port == port)
    }

    @Test(arguments: [
        "", ":", ":80", "80", "a:", "a:65536", "a:-1", "a:+1", "::1:80", "[::1]", "[]:1", "[a]:1", "a b:1", "http://a:1", "a:8o",
    ])
    func whatIsNoListenAddressIsRefused(_ text: String) {
        #expect(ListenAddress(text) == nil)
    }

    @Test(arguments: ["headway.yaml", "worker-gpu0.yaml"])
    func theSamplesWeShipAreValid(_ name: String) throws {
        let root = "\(#filePath)".split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        let path = "\(root)/deploy/systemd/\(name)"
        let file = try SettingsFile(path: path, yaml: TextFile.read(path, limit: Limits.settingsFileBytes))
        #expect(!file.values.isEmpty)
    }

    @Test func randomFilesNeverCrashTheReader() {
        var generator = SeededGenerator(seed: 7)
        let pieces = [
            "gateway", "worker", ":", " ", "\n", "  ", "listen", "queues", "- ", "[", "]", "{", "}", "&a ", "*a", "\"", "'", "|", "é", "1",
        ]
        for _ in 0..<5000 {
            let yaml = (0..<Int.random(in: 0...20, using: &generator)).map { _ in pieces.randomElement(using: &generator) ?? "" }.joined()
            let text = message { _ = try SettingsFile(path: "h.yaml", yaml: yaml) }
            #expect(text == "no error" || (text.hasPrefix("h.yaml:") && !text.contains("\n")), "\(yaml.debugDescription): \(text)")
        }
    }
}
