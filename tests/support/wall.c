/* The wall clock of a process under test, preloaded into it: CLOCK_REALTIME goes by as many milliseconds wrong as the
   file named by WALL_CLOCK_OFFSET says. No other clock moves. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long offset(void)
{
    const char *path = getenv("WALL_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char text[32] = "";
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME) {
        long long wrong = offset();
        long long nanos = time->tv_nsec + wrong % 1000 * 1000000;
        time->tv_sec += wrong / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
        time->tv_nsec = (nanos + 1000000000) % 1000000000;
    }
    return failed;
}
