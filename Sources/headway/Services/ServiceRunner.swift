import Foundation
import JobStore
import Logging
import NIOCore
import RedisLink
import ServiceLifecycle
import Telemetry
import UnixSignals

/// Runs services until a signal or the first failure, and ends them in reverse order.
enum ServiceRunner {
    private enum Ended { case services, signals }

    /// The first SIGTERM or SIGINT drains; a second one ends the process at once.
    static func run(_ services: [any Service], logger: Logger) async throws {
        let configuration = ServiceGroupConfiguration(
            services: services.map {
                .init(
                    service: $0,
                    successTerminationBehavior: .gracefullyShutdownGroup,
                    failureTerminationBehavior: .gracefullyShutdownGroup
                )
            },
            logger: logger
        )
        let group = ServiceGroup(configuration: configuration)
        let signals = await UnixSignalsSequence(trapping: [.sigterm, .sigint])
        do {
            try await withThrowingTaskGroup(of: Ended.self) { tasks in
                tasks.addTask {
                    try await group.run()
                    return .services
                }
                tasks.addTask {
                    var isFirst = true
                    for await signal in signals {
                        guard isFirst else {
                            Output.error.line("headway: second signal, ending at once")
                            exit(128 + (signal == .sigint ? SIGINT : SIGTERM))
                        }
                        isFirst = false
                        logger.info("shutting down", metadata: ["signal": "\(signal)"])
                        await group.triggerGracefulShutdown()
                    }
                    return .signals
                }
                defer { tasks.cancelAll() }
                while let ended = try await tasks.next() {
                    if ended == .services { return }
                }
            }
        } catch {
            throw Explanation.of(error)
        }
    }
}

/// Drives a Redis client as one of several services.
struct RedisService: Service {
    let client: RedisClient

    func run() async throws {
        do {
            try await cancelWhenGracefulShutdown { try await client.run() }
        } catch is CancellationError {
            // The usual end: whoever needs Redis has ended before.
        }
    }
}

/// Makes sure of Redis before a role starts.
enum StoreStart {
    /// Checks server and schema. Waits a while for a Redis that is not there yet, since machines start in any order;
    /// what waiting cannot cure (wrong password, wrong version) is an error at once.
    static func prepare(_ store: JobStore, logger: Logger) async throws {
        let deadline = ContinuousClock.now + .seconds(Limits.redisStartSeconds)
        while true {
            do throws(StoreError) {
                for warning in try await store.prepare() { logger.warning("redis setting", metadata: ["warning": "\(warning)"]) }
                return
            } catch {
                guard error.code == .unavailable, .now < deadline else { throw RedisSession.explain(error) }
                logger.debug("redis is not there yet", metadata: [LogKey.errorMessage: "\(error.message)"])
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }
}

/// Errors of the rooms below as one line that names what to change.
enum Explanation {
    static func of(_ error: any Error) -> any Error {
        switch error {
        case is CommandError: error
        case let error as StoreError: RedisSession.explain(error)
        case let error as RedisError: CommandError(.failed, "Redis: \(error.message)")
        case let error as IOError where error.errnoCode == EADDRINUSE || error.errnoCode == EADDRNOTAVAIL || error.errnoCode == EACCES:
            CommandError(
                .failed,
                "cannot listen: \(SystemText.error(error.errnoCode)); choose another address or port with --listen (HEADWAY_GATEWAY_LISTEN)"
            )
        default: CommandError(.failed, "\(error)")
        }
    }
}

/// Log lines go to stderr: stdout is for data.
enum Logs {
    static func bootstrap(_ settings: SettingsReader, label: String) throws(CommandError) -> Logger {
        let level = try settings.value(Settings.logLevel)
        let format = try settings.value(Settings.logFormat)
        LoggingSystem.bootstrap { LineLogHandler(label: $0, format: format, level: level) }
        return Logger(label: label)
    }
}
