public import Glibc
import Synchronization

/// A process that a test started: ended by its pid, at the latest when this object or the whole test process goes away.
///
/// A small watchdog (`/bin/sh` blocked on a pipe) kills the child when the test process dies by any signal, so that
/// even a test run ended by `kill -9` leaves no server behind.
public final class ChildProcess: Sendable {
    private struct State {
        var exit: Exit?
        var watchdogPipe: Int32
        let watchdog: pid_t
    }

    /// How the child ended.
    public enum Exit: Sendable, Hashable {
        case status(Int32)
        case signal(Int32)
    }

    public let pid: pid_t
    private let state: Mutex<State>

    /// Starts `executable` (a path, or a name looked up in `PATH`).
    /// - Parameters:
    ///   - environment: added to, or replacing, variables of this process.
    ///   - outputPath: file that receives stdout (and stderr, unless `errorPath` is given); default `/dev/null`.
    ///   - scratch: directory to remove when the test process dies without cleaning up.
    public init(
        _ executable: String,
        _ arguments: [String] = [],
        environment: [String: String] = [:],
        outputPath: String = "/dev/null",
        errorPath: String? = nil,
        scratch: String? = nil
    ) throws {
        let child = try spawn(
            executable,
            arguments,
            environment: environment,
            input: nil,
            outputPath: outputPath,
            errorPath: errorPath
        )
        var ends: [Int32] = [-1, -1]
        guard makeClosingPipe(&ends) else {
            Glibc.kill(child, SIGKILL)
            waitpid(child, nil, 0)
            throw TestSupportError(.system, "pipe failed with errno \(errno)")
        }
        defer { close(ends[0]) }
        let script = #"read -r line; [ "$line" = done ] && exit; kill -9 "$0" 2>/dev/null; [ -n "$1" ] && rm -rf "$1""#
        do {
            let watchdog = try spawn(
                "/bin/sh",
                ["-c", script, "\(child)", scratch ?? ""],
                environment: [:],
                input: ends[0],
                outputPath: "/dev/null",
                errorPath: nil
            )
            state = Mutex(State(exit: nil, watchdogPipe: ends[1], watchdog: watchdog))
        } catch {
            close(ends[1])
            Glibc.kill(child, SIGKILL)
            waitpid(child, nil, 0)
            throw error
        }
        pid = child
    }

    deinit { kill() }

    /// Nil while the child runs.
    public var exit: Exit? { state.withLock { reap(&$0, options: WNOHANG) } }
    public var isRunning: Bool { exit == nil }

    /// Sends a signal, unless the child has ended.
    public func signal(_ number: Int32) {
        state.withLock { state in
            // Only an unreaped child is sure to still own its pid.
            if reap(&state, options: WNOHANG) == nil { Glibc.kill(pid, number) }
        }
    }

    /// `kill -9`, and waits until the child is gone. Harmless when it has ended.
    public func kill() {
        state.withLock { state in
            if reap(&state, options: WNOHANG) == nil {
                Glibc.kill(pid, SIGKILL)
                reap(&state, options: 0)
            }
        }
    }

    /// Waits until the child ends by itself; throws `.timedOut` after `limit`.
    @discardableResult
    public func waitForExit(within limit: Duration = .seconds(10)) async throws -> Exit {
        try await eventually(within: limit, "the end of process \(pid)", produce: { self.exit })
    }

    @discardableResult
    private func reap(_ state: inout State, options: Int32) -> Exit? {
        if let exit = state.exit { return exit }
        var status: Int32 = 0
        while true {
            let rc = waitpid(pid, &status, options)
            if rc == 0 { return nil }
            if rc == -1, errno == EINTR { continue }
            break
        }
        let signal = status & 0x7f
        let exit: Exit = signal == 0 ? .status((status >> 8) & 0xff) : .signal(signal)
        state.exit = exit
        dismissWatchdog(&state)
        return exit
    }

    private func dismissWatchdog(_ state: inout State) {
        _ = "done\n".withCString { write(state.watchdogPipe, $0, 5) }
        close(state.watchdogPipe)
        state.watchdogPipe = -1
        waitpid(state.watchdog, nil, 0)
    }
}

/// Held while a child is spawned and while a pipe is not yet close-on-exec: a watchdog's pipe that leaked into another
/// child would keep the watchdog asleep.
private let spawnLock = Mutex(())

private func makeClosingPipe(_ ends: inout [Int32]) -> Bool {
    spawnLock.withLock { _ in
        pipe(&ends) == 0 && ends.allSatisfy { fcntl($0, F_SETFD, FD_CLOEXEC) == 0 }
    }
}

/// `posix_spawnp` with default signals, its own process group, and no descriptors but 0, 1 and 2.
private func spawn(
    _ executable: String,
    _ arguments: [String],
    environment: [String: String],
    input: Int32?,
    outputPath: String,
    errorPath: String?
) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if let input {
        posix_spawn_file_actions_adddup2(&actions, input, 0)
    } else {
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    }
    posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    if let errorPath {
        posix_spawn_file_actions_addopen(&actions, 2, errorPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    } else {
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
    }
    // Sockets of the test process that leaked into a child would stay open after the test closed them.
    for descriptor in directoryEntries("/proc/self/fd").compactMap({ Int32($0) }) where descriptor > 2 {
        posix_spawn_file_actions_addclose(&actions, descriptor)
    }

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
    posix_spawnattr_setflags(
        &attributes,
        Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP)
    )

    var argv = ([executable] + arguments).map { strdup($0) } + [nil]
    var envp = mergedEnvironment(environment).map { strdup($0) } + [nil]
    defer {
        for string in argv + envp { free(string) }
    }
    var pid: pid_t = 0
    let rc = spawnLock.withLock { _ in posix_spawnp(&pid, executable, &actions, &attributes, &argv, &envp) }
    guard rc == 0 else {
        let code: TestSupportError.Code = rc == ENOENT ? .missingProgram : .process
        throw TestSupportError(code, "cannot start \(executable): \(String(cString: strerror(rc)))")
    }
    return pid
}

private func mergedEnvironment(_ changes: [String: String]) -> [String] {
    var result: [String] = []
    var cursor = environ
    while let entry = cursor.pointee {
        let text = String(cString: entry)
        let name = text.prefix { $0 != "=" }
        if changes[String(name)] == nil { result.append(text) }
        cursor += 1
    }
    return result + changes.map { "\($0.key)=\($0.value)" }
}
