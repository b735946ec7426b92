// A pseudo-terminal for programs that draw their bars on a terminal only.
#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

// Moves a descriptor out of the way of the numbers that a child gets, close-on-exec.
static int raise_descriptor(int *fd) {
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, 16);
    int error = errno;
    close(*fd);
    *fd = high;
    return high < 0 ? error : 0;
}

static int open_slave(int master, int rows, int columns, int *slave) {
    char name[128];
    if (grantpt(master) != 0 || unlockpt(master) != 0) {
        return errno;
    }
    int error = ptsname_r(master, name, sizeof name);
    if (error != 0) {
        return error;
    }
    *slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave < 0) {
        return errno;
    }
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    ioctl(*slave, TIOCSWINSZ, &size);
    struct termios modes;
    if (tcgetattr(*slave, &modes) == 0) {
        // Nobody types, and lines end as they do in a pipe.
        modes.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
        modes.c_oflag &= ~(tcflag_t)ONLCR;
        tcsetattr(*slave, TCSANOW, &modes);
    }
    return raise_descriptor(slave);
}

int headway_open_terminal(int *master, int *slave, int rows, int columns) {
    *slave = -1;
    *master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*master < 0) {
        return errno;
    }
    int error = open_slave(*master, rows, columns, slave);
    if (error == 0) {
        error = raise_descriptor(master);
    }
    if (error != 0) {
        if (*master >= 0) {
            close(*master);
        }
        if (*slave >= 0) {
            close(*slave);
        }
    }
    return error;
}
