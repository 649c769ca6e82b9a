/* What this machine can do at all: memcpy, two processes taking turns through shared memory, bare blocking TCP.
 *
 * Usage: machine NAME SIZE SECONDS DEADLINE_S PARENT_PID; prints one line of JSON, rounds (or copies) and the seconds
 * that they took. Pairs of processes are left wherever the scheduler puts them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"
#include "tcp.h"

enum {
    BATCH = 16 /* the clock is read once in so many rounds: it costs as much as a part of the shortest */
};

static size_t size;
static double seconds;

/* Repeat `turn` for the given time and print how often that was. */
static void repeat(void (*turn)(void *), void *argument)
{
    uint64_t count = 0, begin_ns = now_ns(), now = begin_ns;
    while ((double)(now - begin_ns) < seconds * 1e9) {
        for (int at = 0; at < BATCH; at++)
            turn(argument);
        count += BATCH;
        now = now_ns();
    }
    printf("{\"count\":%llu,\"elapsed_s\":%.9f}\n", (unsigned long long)count, (double)(now - begin_ns) / 1e9);
}

/* memcpy. */

static void copy_once(void *argument)
{
    uint8_t **buffers = argument;
    memcpy(buffers[1], buffers[0], size);
    __asm__ volatile("" ::: "memory"); /* no copy may be left out */
}

static void measure_memcpy(void)
{
    uint8_t *buffers[2] = {own_memory(size), own_memory(size)};
    repeat(copy_once, buffers);
}

/* Shared memory: two words on lines of their own, each written by one process. */

struct words {
    _Alignas(64) _Atomic uint64_t there;
    _Alignas(64) _Atomic uint64_t back;
    void (*wait)(void);
};

static void spin(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void yield(void)
{
    sched_yield();
}

static void echo_words(void *argument)
{
    struct words *words = argument;
    for (uint64_t round = 1;; round++) {
        while (atomic_load_explicit(&words->there, memory_order_acquire) < round)
            words->wait();
        atomic_store_explicit(&words->back, round, memory_order_release);
    }
}

static void round_of_words(void *argument)
{
    struct words *words = argument;
    uint64_t round = atomic_load_explicit(&words->there, memory_order_relaxed) + 1;
    atomic_store_explicit(&words->there, round, memory_order_release);
    while (atomic_load_explicit(&words->back, memory_order_acquire) < round)
        words->wait();
}

static void measure_words(void (*wait)(void))
{
    struct words *words = share_memory(sizeof *words);
    words->wait = wait;
    start_child("the echo", echo_words, words);
    round_of_words(words); /* it runs */
    repeat(round_of_words, words);
}

/* Eventfds: both processes sleep. */

static void ring_bell(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) != sizeof one)
        fail("an eventfd takes no bell: %s", strerror(errno));
}

static void wait_for_bell(int fd)
{
    uint64_t bells;
    if (read(fd, &bells, sizeof bells) != sizeof bells)
        fail("an eventfd cannot be read: %s", strerror(errno));
}

static void echo_bells(void *argument)
{
    int *fds = argument;
    for (;;) {
        wait_for_bell(fds[0]);
        ring_bell(fds[1]);
    }
}

static void round_of_bells(void *argument)
{
    int *fds = argument;
    ring_bell(fds[0]);
    wait_for_bell(fds[1]);
}

static void measure_bells(void)
{
    int fds[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
    if (fds[0] < 0 || fds[1] < 0)
        fail("no eventfd: %s", strerror(errno));
    start_child("the echo", echo_bells, fds);
    round_of_bells(fds);
    repeat(round_of_bells, fds);
}

/* TCP, blocking. */

struct end {
    int fd;
    uint8_t *buffer;
};

static void send_all(struct end *end)
{
    size_t done = 0;
    while (done < size) {
        ssize_t sent = send(end->fd, end->buffer + done, size - done, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            fail("send: %s", strerror(errno));
        done += sent < 0 ? 0 : (size_t)sent;
    }
}

static void receive_all(struct end *end)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = recv(end->fd, end->buffer + done, size - done, 0);
        if (got == 0)
            _exit(0); /* the other end is done */
        if (got < 0 && errno != EINTR)
            fail("recv: %s", strerror(errno));
        done += got < 0 ? 0 : (size_t)got;
    }
}

static void echo_messages(void *argument)
{
    struct end end = {((int *)argument)[1], own_memory(size)};
    close(((int *)argument)[0]);
    for (;;) {
        receive_all(&end);
        send_all(&end);
    }
}

static void take_stream(void *argument)
{
    struct end end = {((int *)argument)[1], own_memory(size)};
    close(((int *)argument)[0]);
    for (;;)
        receive_all(&end);
}

static void round_of_messages(void *argument)
{
    send_all(argument);
    receive_all(argument);
}

static void send_message(void *argument)
{
    send_all(argument);
}

static void measure_tcp(void (*peer)(void *), void (*turn)(void *))
{
    int ends[2];
    connect_pair(ends);
    struct end end = {ends[0], own_memory(size)};
    start_child("the peer", peer, ends);
    close(ends[1]);
    turn(&end);
    repeat(turn, &end);
}

int main(int count, char **arguments)
{
    if (count != 6)
        fail("usage: %s NAME SIZE SECONDS DEADLINE_S PARENT_PID", arguments[0]);
    const char *name = arguments[1];
    size = (size_t)atol(arguments[2]);
    seconds = atof(arguments[3]);
    begin((pid_t)atol(arguments[5]), atof(arguments[4]));
    if (strcmp(name, "memcpy") == 0)
        measure_memcpy();
    else if (strcmp(name, "spin") == 0)
        measure_words(spin);
    else if (strcmp(name, "yield") == 0)
        measure_words(yield);
    else if (strcmp(name, "eventfd") == 0)
        measure_bells();
    else if (strcmp(name, "tcp-pingpong") == 0)
        measure_tcp(echo_messages, round_of_messages);
    else if (strcmp(name, "tcp-oneway") == 0)
        measure_tcp(take_stream, send_message);
    else
        fail("there is no floor %s", name);
    end_children();
    return 0;
}
