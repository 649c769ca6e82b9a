#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "process.h"

struct doorbell make_doorbell(void)
{
    struct doorbell bell = {.ticket = share_memory(64), .eventfd = eventfd(0, EFD_CLOEXEC)};
    if (bell.eventfd < 0)
        fail("no eventfd: %s", strerror(errno));
    return bell;
}

void arm(struct doorbell *bell)
{
    atomic_store_explicit(bell->ticket, ++bell->last, memory_order_relaxed);
}

void disarm(struct doorbell *bell)
{
    atomic_store_explicit(bell->ticket, 0, memory_order_relaxed);
}

void ring_if_asleep(struct doorbell *bell)
{
    uint64_t ticket = atomic_load_explicit(bell->ticket, memory_order_relaxed), one = 1;
    if (ticket == 0 || ticket == bell->last)
        return;
    bell->last = ticket;
    if (write(bell->eventfd, &one, sizeof one) != sizeof one)
        fail("an eventfd takes no bell: %s", strerror(errno));
}

struct ring make_ring(size_t size)
{
    struct ring ring = {.words = share_memory(sizeof *ring.words), .size = size};
    int fd = memfd_create("partywire-floor", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        fail("no memory file for a ring: %s", strerror(errno));
    ring.data = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring.data == MAP_FAILED)
        fail("no addresses for a ring: %s", strerror(errno));
    for (uint8_t *half = ring.data; half <= ring.data + size; half += size)
        if (mmap(half, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) == MAP_FAILED)
            fail("a ring cannot be mapped: %s", strerror(errno));
    close(fd);
    return ring;
}

void ring_publish(struct ring *ring, size_t size, struct doorbell *consumer)
{
    uint64_t tail = atomic_load_explicit(&ring->words->tail, memory_order_relaxed) + size;
    /* Release, with ring_filled: whoever sees this tail sees every byte before it. */
    atomic_store_explicit(&ring->words->tail, tail, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    ring_if_asleep(consumer);
}

void ring_release(struct ring *ring, size_t size, struct doorbell *producer)
{
    uint64_t head = atomic_load_explicit(&ring->words->head, memory_order_relaxed) + size;
    /* Release, with ring_room: whoever sees this head may overwrite every byte before it. */
    atomic_store_explicit(&ring->words->head, head, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&ring->words->wants_space, memory_order_relaxed))
        return;
    uint64_t tail = atomic_load_explicit(&ring->words->tail, memory_order_relaxed);
    if (ring->size - (tail - head) < ring->size / RING_WAKE_FREE_PART)
        return;
    atomic_store_explicit(&ring->words->wants_space, 0, memory_order_relaxed);
    ring_if_asleep(producer);
}
