// The guard: a small process between a worker and one generator.
//
// It exists because only a parent can clean up after a program that it does not control. A worker that is killed by SIGKILL cannot
// do anything more; PR_SET_PDEATHSIG would follow the *thread* that forked; a process group does not hold what calls setsid(). The
// guard is single-threaded, holds no memory of the worker, and watches a pipe whose other end only the worker has: when the worker
// is gone, for whatever reason, the pipe closes. As subreaper (prctl(2)) it inherits every descendant that loses its parent, so that
// "all my children, again and again, until there are none" is the whole tree.
//
// It is this very program, started again under the name headway-guard and caught before main by a constructor: nothing else has to be
// installed, and nothing but C runs in it.
#define _GNU_SOURCE
#include "CProcess.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { control_fd = 4, report_fd = 5 };
// Processes looked at in one sweep; when there are more, the next one finds the rest.
enum { table_limit = 16384 };
// Between two sweeps while a descendant does not die, at first and at last.
enum { first_sweep_ms = 5, last_sweep_ms = 500 };

static pid_t leader;
static int is_leader_alive;
static struct {
    pid_t pid, parent;
    int is_ours;
} table[table_limit];

static void on_child(int signal) { (void)signal; }

static void report(enum headway_report_kind kind, int value) {
    int32_t message[2] = {kind, value};
    // Fits into any pipe; when the worker is gone there is nobody to tell.
    ssize_t written = write(report_fd, message, sizeof message);
    (void)written;
}

// Fills `table` with all processes that can be seen. Returns how many.
static int list_processes(void) {
    DIR *directory = opendir("/proc");
    if (directory == NULL) {
        return 0;
    }
    int count = 0;
    struct dirent *entry;
    while (count < table_limit && (entry = readdir(directory)) != NULL) {
        char path[64], text[512];
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9') {
            continue;
        }
        snprintf(path, sizeof path, "/proc/%.20s/stat", entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) {
            continue;
        }
        ssize_t length = read(file, text, sizeof text - 1);
        close(file);
        if (length <= 0) {
            continue;
        }
        text[length] = 0;
        // PID (NAME) STATE PARENT: the name may hold anything.
        char *behind_name = strrchr(text, ')');
        int parent = 0;
        if (behind_name != NULL && sscanf(behind_name + 1, " %*c %d", &parent) == 1) {
            table[count].pid = atoi(entry->d_name);
            table[count].parent = parent;
            table[count].is_ours = 0;
            count++;
        }
    }
    closedir(directory);
    return count;
}

// Whether `pid` is known to be a descendant. The kernel lists processes in the order of their ids.
static int is_ours(int count, pid_t pid) {
    int low = 0;
    while (low < count) {
        int middle = low + (count - low) / 2;
        if (table[middle].pid == pid) {
            return table[middle].is_ours;
        }
        if (table[middle].pid < pid) {
            low = middle + 1;
        } else {
            count = middle;
        }
    }
    return 0;
}

// Signals the leader's process group in one step, and every other descendant on its own.
static void signal_tree(int signal) {
    pid_t guard = getpid();
    pid_t group = is_leader_alive ? leader : 0;
    int count = list_processes();
    for (int has_grown = 1; has_grown;) {
        has_grown = 0;
        for (int i = 0; i < count; i++) {
            if (!table[i].is_ours && (table[i].parent == guard || is_ours(count, table[i].parent))) {
                table[i].is_ours = has_grown = 1;
            }
        }
    }
    if (group > 0) {
        kill(-group, signal);
    }
    for (int i = 0; i < count; i++) {
        if (table[i].is_ours && (group == 0 || getpgid(table[i].pid) != group)) {
            kill(table[i].pid, signal);
        }
    }
}

// Reaps what has ended. Returns 0 when there are no children left.
static int reap(void) {
    for (;;) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid == 0 || (pid < 0 && errno == EINTR)) {
            return 1;
        }
        if (pid < 0) {
            return 0;
        }
        if (pid == leader) {
            is_leader_alive = 0;
            report(headway_report_exited, status);
        }
    }
}

static void run_generator(int is_terminal, pid_t guard, char **argv) {
    int failed[2];
    if (pipe2(failed, O_CLOEXEC) != 0) {
        report(headway_report_not_started, errno);
        _exit(0);
    }
    leader = fork();
    if (leader < 0) {
        report(headway_report_not_started, errno);
        _exit(0);
    }
    if (leader == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != guard) {
            _exit(127);
        }
        setsid();
        if (is_terminal) {
            ioctl(1, TIOCSCTTY, 0);
        }
        signal(SIGCHLD, SIG_DFL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        // The ends of `failed` are close-on-exec.
        close(control_fd);
        close(report_fd);
        execv(argv[0], argv);
        int error = errno;
        ssize_t written = write(failed[1], &error, sizeof error);
        (void)written;
        _exit(127);
    }
    is_leader_alive = 1;
    close(failed[1]);
    int error = 0;
    ssize_t length;
    do {
        length = read(failed[0], &error, sizeof error);
    } while (length < 0 && errno == EINTR);
    close(failed[0]);
    if (length == sizeof error) {
        report(headway_report_not_started, error);
        _exit(0);
    }
}

static void guard_main(int is_terminal, char **argv) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "headway-guard");
    sigset_t all, during_poll;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigfillset(&during_poll);
    sigdelset(&during_poll, SIGCHLD);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_child;
    sigaction(SIGCHLD, &action, NULL);

    run_generator(is_terminal, getpid(), argv);
    // From now on the generator alone holds its ends of the pipes.
    for (int fd = 0; fd < control_fd; fd++) {
        close(fd);
    }
    int is_worker_gone = 0;
    long sweep_ms = first_sweep_ms;
    for (;;) {
        if (reap() == 0 && is_worker_gone) {
            _exit(0);
        }
        if (is_worker_gone) {
            signal_tree(SIGKILL);
            sweep_ms = sweep_ms * 2 < last_sweep_ms ? sweep_ms * 2 : last_sweep_ms;
        }
        struct pollfd control = {.fd = is_worker_gone ? -1 : control_fd, .events = POLLIN};
        struct timespec pause = {.tv_nsec = sweep_ms * 1000000L};
        if (ppoll(&control, 1, is_worker_gone ? &pause : NULL, &during_poll) <= 0 || control.revents == 0) {
            continue;
        }
        char order = 0;
        ssize_t length = read(control_fd, &order, 1);
        if (length == 0 || (length < 0 && errno != EINTR && errno != EAGAIN)) {
            is_worker_gone = 1;
        } else if (order == headway_order_terminate) {
            signal_tree(SIGTERM);
        } else if (order == headway_order_kill) {
            signal_tree(SIGKILL);
        }
    }
}

__attribute__((constructor)) static void enter_guard(int argc, char **argv, char **envp) {
    (void)envp;
    if (argc < 3 || argv == NULL || strcmp(argv[0], headway_guard_name) != 0) {
        return;
    }
    guard_main(strcmp(argv[1], "terminal") == 0, argv + 2);
    _exit(1);
}
