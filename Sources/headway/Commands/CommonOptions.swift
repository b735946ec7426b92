import ArgumentParser
import Foundation
import Logging

/// Options that every command knows.
struct CommonOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Settings file (environment: HEADWAY_CONFIG).", valueName: "file"))
    var config: String?

    @Option(help: "Least important log line on stderr: trace, debug, info, notice, warning, error, critical.")
    var logLevel: String?

    @Option(help: "Form of log lines: text or json.")
    var logFormat: String?

    /// Flags, environment and file, checked.
    func reader(_ flags: [SettingsReader.Flag]) throws(CommandError) -> SettingsReader {
        let environment = ProcessInfo.processInfo.environment
        var file: SettingsFile?
        if let path = config ?? environment["HEADWAY_CONFIG"].flatMap({ $0.isEmpty ? nil : $0 }) {
            file = try SettingsFile(path: path, yaml: TextFile.read(path, limit: Limits.settingsFileBytes))
        }
        let common = [SettingsReader.Flag(Settings.logLevel, logLevel), .init(Settings.logFormat, logFormat)]
        return try SettingsReader(flags: flags + common, environment: environment, file: file)
    }
}

/// Where clients find the gateway.
struct GatewayOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The gateway to talk to.", valueName: "url"))
    var gateway: String?

    var flag: SettingsReader.Flag { .init(Settings.gatewayURL, gateway) }
}

/// Where Redis is.
struct RedisOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Redis that holds queues and progress, e.g. redis://127.0.0.1:6379/0.", valueName: "url"))
    var redis: String?

    @Option(help: "First part of every key in Redis.")
    var prefix: String?

    var flags: [SettingsReader.Flag] { [.init(Settings.redisURL, redis), .init(Settings.redisPrefix, prefix)] }
}

/// Small files that are read whole.
enum TextFile {
    static func read(_ path: String, limit: Int) throws(CommandError) -> String {
        guard let handle = FileHandle(forReadingAtPath: path) else { throw .usage("\(path): \(SystemText.error(errno))") }
        defer { try? handle.close() }
        let data: Data
        do {
            data = try handle.read(upToCount: limit + 1) ?? Data()
        } catch {
            throw .usage("\(path): cannot be read; is it a directory?")
        }
        guard data.count <= limit else { throw .usage("\(path): larger than \(limit) bytes") }
        guard let text = String(data: data, encoding: .utf8) else { throw .usage("\(path): not UTF-8 text") }
        return text
    }
}
