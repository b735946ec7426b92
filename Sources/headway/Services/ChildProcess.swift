import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// A long-lived child in a process group of its own (so that Ctrl-C in the terminal does not reach it before we have drained),
/// which dies with us however we die: a small shell blocked on a pipe sends SIGTERM when the pipe closes.
final class ChildProcess: Sendable {
    enum Exit: Sendable, Equatable, CustomStringConvertible {
        case status(CInt)
        case signal(CInt)

        var description: String {
            switch self {
            case .status(let code): "status \(code)"
            case .signal(let number): "signal \(number)"
            }
        }
    }

    private struct State {
        var exit: Exit?
        var watchdogPipe: CInt
        let watchdog: pid_t
    }

    let pid: pid_t
    private let state: Mutex<State>

    /// Starts `program`, an absolute path. Its output goes to our stderr's place: `/dev/null` unless it keeps a log itself.
    init(_ program: String, _ arguments: [String]) throws(CommandError) {
        var ends: [CInt] = [-1, -1]
        // Between the two calls another thread's child could inherit the pipe; it would only delay the watchdog until that child ends.
        guard pipe(&ends) == 0, ends.allSatisfy({ fcntl($0, F_SETFD, FD_CLOEXEC) == 0 }) else {
            throw CommandError(.failed, "pipe: \(SystemText.error(errno))")
        }
        defer { close(ends[0]) }
        let child: pid_t
        do {
            child = try Self.spawn(program, arguments, input: nil)
        } catch {
            close(ends[1])
            throw error
        }
        do {
            // A line means we ended the child ourselves; the end of the pipe without one means that we are gone.
            let watchdog = try Self.spawn("/bin/sh", ["-c", "read -r line && exit; kill -TERM \"$0\"", "\(child)"], input: ends[0])
            state = Mutex(State(exit: nil, watchdogPipe: ends[1], watchdog: watchdog))
        } catch {
            close(ends[1])
            kill(child, SIGKILL)
            waitpid(child, nil, 0)
            throw error
        }
        pid = child
    }

    /// Nil while the child runs.
    var exit: Exit? {
        state.withLock { state in
            if let exit = state.exit { return exit }
            var status: CInt = 0
            guard waitpid(pid, &status, WNOHANG) == pid else { return nil }
            let signal = status & 0x7F
            let exit = signal == 0 ? Exit.status((status >> 8) & 0xFF) : .signal(signal)
            state.exit = exit
            _ = Glibc.write(state.watchdogPipe, "\n", 1)
            close(state.watchdogPipe)
            waitpid(state.watchdog, nil, 0)
            return exit
        }
    }

    /// SIGTERM, and SIGKILL when that has not helped within `grace`. Returns when the child is gone.
    func stop(grace: Duration) async {
        let deadline = ContinuousClock.now + grace
        signal(SIGTERM)
        while exit == nil {
            if .now >= deadline { signal(SIGKILL) }
            // Not cancellable on purpose: whoever stops a child wants it gone.
            await Task { try? await Task.sleep(for: .milliseconds(20)) }.value
        }
    }

    private func signal(_ number: CInt) {
        // Only a child that was not yet waited for is sure to own its pid.
        if exit == nil { kill(pid, number) }
    }

    private static func spawn(_ program: String, _ arguments: [String], input: CInt?) throws(CommandError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let input {
            posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        } else {
            posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        }
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))

        var argv = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for text in argv { free(text) } }
        var pid: pid_t = 0
        let code = posix_spawn(&pid, program, &actions, &attributes, &argv, environ)
        guard code == 0 else { throw CommandError(.failed, "\(program) cannot be started: \(SystemText.error(code))") }
        return pid
    }
}

/// Finds programs as a shell does.
enum ProgramSearch {
    /// The path of an executable file: `name` itself when it holds a slash, else the first hit in `PATH`.
    static func find(_ name: String, path: String) -> String? {
        let candidates = name.contains("/") ? [name] : path.split(separator: ":").map { "\($0)/\(name)" }
        return candidates.first { access($0, X_OK) == 0 }
    }
}
