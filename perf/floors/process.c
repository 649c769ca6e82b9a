#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *our_role = "the floor";
static double our_deadline_s;

static struct {
    pid_t pid;
    const char *role;
} children[CHILDREN_MAX];
static int child_count;

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void fail(const char *format, ...)
{
    char sentence[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "%s: %s\n", our_role, sentence);
    end_children();
    _exit(1);
}

/* Only async-signal-safe calls from here. */
static void at_deadline(int number)
{
    static const char sentence[] = "a floor ran past its deadline and was ended\n";
    (void)number;
    if (write(STDERR_FILENO, sentence, sizeof sentence - 1) < 0) {
        /* Nobody reads it; ending is all that is left to do. */
    }
    end_children();
    _exit(1);
}

static void limit_life(pid_t parent)
{
    struct itimerval timer = {.it_value = {.tv_sec = (time_t)our_deadline_s,
                                           .tv_usec = (suseconds_t)((our_deadline_s - (time_t)our_deadline_s) * 1e6)}};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        fail("process %d, which must outlive this one, is gone already", (int)parent);
    if (setitimer(ITIMER_REAL, &timer, NULL) != 0)
        fail("no deadline can be set: %s", strerror(errno));
}

void begin(pid_t parent, double deadline_s)
{
    struct sigaction action = {.sa_handler = at_deadline};
    sigset_t ends;
    our_deadline_s = deadline_s;
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* they are waited for by sigtimedwait */
    limit_life(parent);
}

pid_t start_child(const char *role, void (*body)(void *), void *argument)
{
    pid_t parent = getpid();
    if (child_count == CHILDREN_MAX)
        fail("more than %d processes", CHILDREN_MAX);
    pid_t pid = fork();
    if (pid < 0)
        fail("cannot fork: %s", strerror(errno));
    if (pid == 0) {
        child_count = 0; /* the others are our parent's to end */
        our_role = role;
        limit_life(parent);
        body(argument);
        _exit(0);
    }
    children[child_count].pid = pid;
    children[child_count].role = role;
    child_count++;
    return pid;
}

static void report_end(void)
{
    for (int at = 0; at < child_count; at++) {
        int status = 0;
        if (waitpid(children[at].pid, &status, WNOHANG) <= 0)
            continue;
        const char *role = children[at].role;
        children[at] = children[--child_count];
        if (WIFSIGNALED(status))
            fail("%s was ended by signal %d", role, WTERMSIG(status));
        fail("%s ended too early, with code %d", role, WEXITSTATUS(status));
    }
}

void sleep_beside_children(double seconds)
{
    sigset_t ends;
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    for (uint64_t now = now_ns(); now < end; now = now_ns()) {
        struct timespec rest = {(time_t)((end - now) / 1000000000u), (long)((end - now) % 1000000000u)};
        if (sigtimedwait(&ends, NULL, &rest) == SIGCHLD)
            report_end();
    }
}

void end_children(void)
{
    for (int at = 0; at < child_count; at++)
        kill(children[at].pid, SIGKILL);
    for (int at = 0; at < child_count; at++)
        while (waitpid(children[at].pid, NULL, 0) < 0 && errno == EINTR) {
        }
    child_count = 0;
}

double cpu_s(pid_t pid)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        fail("the CPU time of process %d cannot be read", (int)pid);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

uint64_t context_switches(pid_t pid)
{
    char path[64], line[256];
    unsigned long long sum = 0, count;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "re");
    if (status == NULL)
        return 0; /* without /proc the figure is missing, and nothing else is */
    while (fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %llu", &count) == 1)
            sum += count;
    fclose(status);
    return sum;
}

static void *map_memory(size_t size, int sharing)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory for %zu bytes: %s", size, strerror(errno));
    return memory;
}

void *share_memory(size_t size)
{
    return map_memory(size, MAP_SHARED);
}

void *own_memory(size_t size)
{
    return map_memory(size, MAP_PRIVATE);
}
