#ifndef HEADWAY_CPROCESS_H
#define HEADWAY_CPROCESS_H

// No system headers here: what they declare would belong to this module for Swift.

/// The name under which this program runs as a guard (`guard.c`).
#define headway_guard_name "headway-guard"

/// What a worker tells a guard, one byte each; closing the pipe means SIGKILL for everything, and the guard ends when nothing is left.
enum headway_order {
    /// SIGTERM to the generator and all its descendants.
    headway_order_terminate = 'T',
    /// SIGKILL to them.
    headway_order_kill = 'K',
};

/// What a guard tells its worker: two 32-bit numbers, the kind and a value.
enum headway_report_kind {
    /// The generator could not be started: the error number.
    headway_report_not_started = 1,
    /// The generator ended: its wait status. Its descendants may live on until they are killed.
    headway_report_exited = 2,
};

/// Starts a guard, in a session of its own, with default signal handling and an empty signal mask. `argv` is `headway_guard_name`,
/// "pipes" or "terminal", the path of the generator and its arguments. Of the descriptors `fds`, 0 to 3 become the generator's, 4 is
/// the reading end of the pipe for orders, 5 the writing end of the one for reports; every other one is closed. For "terminal" 1 is
/// a terminal that becomes the controlling one of the generator's session. All of `fds` must be >= fd_count. Returns 0 and the id of
/// the guard in `pid`, or the error number.
int headway_spawn_guard(int *pid, char *const argv[], char *const envp[], const int fds[], int fd_count);

/// A pseudo-terminal of that size, without echo and without change of line ends, both ends as those of a pipe below. Returns 0 or the
/// error number.
int headway_open_terminal(int *master, int *slave, int rows, int columns);

/// A pipe whose ends are both close-on-exec and at least 16, so that they never meet the numbers of a child's descriptors.
int headway_pipe(int ends[2]);

/// Runs `body(context)` on a detached thread of its own, with every signal blocked. Returns 0 or the error number.
int headway_start_thread(void (*body)(void *), void *context);

#endif
