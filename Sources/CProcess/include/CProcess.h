#ifndef HEADWAY_CPROCESS_H
#define HEADWAY_CPROCESS_H

// No system headers here: what they declare would belong to this module for Swift.

/// Starts `path` as the leader of a process group of its own, with default signal handling and an empty signal mask.
/// `fds[i]` becomes descriptor `i` of the child; every other descriptor is closed in it. All of `fds` must be >= fd_count.
/// Returns 0 and the id of the child in `pid`, or the error number.
int headway_spawn(int *pid, const char *path, char *const argv[], char *const envp[], const int fds[], int fd_count);

/// A descriptor that becomes readable when the process ends, close-on-exec; -1 with errno where the kernel has none.
int headway_pidfd_open(int pid);

/// Whether the child has ended, without reaping it: 1, 0, or -1 when it is not our child.
int headway_has_exited(int pid);

/// A pipe whose ends are both close-on-exec and at least 16, so that they never meet the numbers of a child's descriptors.
int headway_pipe(int ends[2]);

/// Runs `body(context)` on a detached thread of its own, with every signal blocked. Returns 0 or the error number.
int headway_start_thread(void (*body)(void *), void *context);

#endif
