// What Swift cannot call: extensions of posix_spawn that glibc hides behind _GNU_SOURCE, and variadic calls.
#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(pid_t) == sizeof(int), "process ids are ints");

static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, const int fds[], int fd_count) {
    int error = 0;
    for (int i = 0; i < fd_count && error == 0; i++) {
        error = posix_spawn_file_actions_adddup2(actions, fds[i], i);
    }
    if (error == 0) {
        // Ours are close-on-exec already; this also holds for descriptors that a library opened without that.
        error = posix_spawn_file_actions_addclosefrom_np(actions, fd_count);
    }
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    if (error == 0) {
        error = posix_spawnattr_setsigdefault(attributes, &all);
    }
    if (error == 0) {
        error = posix_spawnattr_setsigmask(attributes, &none);
    }
    if (error == 0) {
        // A session of its own: signals of the worker's terminal are not meant for it.
        error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    }
    return error;
}

int headway_spawn_guard(int *pid, char *const argv[], char *const envp[], const int fds[], int fd_count) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0) {
        return error;
    }
    error = posix_spawnattr_init(&attributes);
    if (error != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    error = prepare(&actions, &attributes, fds, fd_count);
    if (error == 0) {
        error = posix_spawn(pid, "/proc/self/exe", &actions, &attributes, argv, envp);
    }
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

int headway_pipe(int ends[2]) {
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0) {
        return errno;
    }
    ends[0] = fcntl(low[0], F_DUPFD_CLOEXEC, 16);
    int error = errno;
    ends[1] = ends[0] < 0 ? -1 : fcntl(low[1], F_DUPFD_CLOEXEC, 16);
    if (ends[0] >= 0 && ends[1] < 0) {
        error = errno;
        close(ends[0]);
    }
    close(low[0]);
    close(low[1]);
    return ends[1] < 0 ? error : 0;
}

struct thread_start {
    void (*body)(void *);
    void *context;
};

static void *thread_main(void *pointer) {
    struct thread_start start = *(struct thread_start *)pointer;
    free(pointer);
    // Signals of the process are other threads' business, and SIGPIPE becomes the error it should be.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    start.body(start.context);
    return NULL;
}

int headway_start_thread(void (*body)(void *), void *context) {
    struct thread_start *start = malloc(sizeof *start);
    if (start == NULL) {
        return ENOMEM;
    }
    start->body = body;
    start->context = context;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    pthread_t thread;
    int error = pthread_create(&thread, &attributes, thread_main, start);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        free(start);
    }
    return error;
}
