import ArgumentParser

/// The one program: every role of the service and every client command.
@main
struct Headway: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "headway",
        abstract: "Progress of long jobs, from the workers that run them to the people who wait.",
        discussion: """
            Every option has an environment name and a key in the YAML file given by --config; `headway config` lists them all. \
            A flag wins over the environment, the environment over the file.
            """,
        version: Version.text,
        subcommands: [
            DevCommand.self,
            GatewayCommand.self,
            WorkerCommand.self,
            RunCommand.self,
            SubmitCommand.self,
            WatchCommand.self,
            CancelCommand.self,
            RetryCommand.self,
            ShowCommand.self,
            WhyCommand.self,
            LogsCommand.self,
            QueuesCommand.self,
            LimitsCommand.self,
            PauseCommand.self,
            ResumeCommand.self,
            DrainCommand.self,
            PurgeCommand.self,
            DeadCommand.self,
            RedriveCommand.self,
            AuditCommand.self,
            WorkersCommand.self,
            HealthCommand.self,
            ScriptsCommand.self,
            BenchCommand.self,
            StatsCommand.self,
            TraceCommand.self,
            ReplayCommand.self,
            ConfigCommand.self,
        ]
    )

    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            fail(error)
        }
    }

    /// Says in one line what is wrong and ends with the code scripts rely on.
    private static func fail(_ error: any Error) -> Never {
        if let error = error as? CommandError {
            Output.error.line("headway: \(TextWidth.printable(error.message))")
            exit(withError: ExitCode(error.code.rawValue))
        }
        if error is ExitCode || exitCode(for: error).isSuccess {
            exit(withError: error)
        }
        let message = message(for: error)
        Output.error.line("headway: \(TextWidth.printable(message.isEmpty ? "\(error)" : message)) (see headway --help)")
        // ArgumentParser would end with 64 (EX_USAGE); ours is 2 for every command.
        exit(withError: ExitCode(exitCode(for: error) == .validationFailure ? CommandError.Code.usage.rawValue : 1))
    }
}

enum Version {
    static let text = "0.1.0"
}
