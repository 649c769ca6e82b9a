/* Byte rings between one producer and one consumer, and the doorbells their processes sleep at.
 *
 *     head <= tail <= head + size        positions only grow; index = position mod size, a power of two
 *
 * The data are mapped twice in a row, so that whatever lies between two positions is one piece of memory. The shape is
 * that of shm/ring.py and shm/doorbell.py, with compiled fences: a sleeper writes its ticket, fences, looks at every
 * source again and only then sleeps; a waker publishes, fences, and rings if it finds a ticket it has not rung for.
 */
#ifndef PARTYWIRE_FLOORS_RING_H
#define PARTYWIRE_FLOORS_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RING_WAKE_FREE_PART = 8,  /* a producer that waits for room is woken when this part of the ring is free */
    RING_SLICE_SIZE = 1 << 20 /* moved at most before it is published or released, so that both ends work at once */
};

/* A process sleeps at its doorbell; any number of processes ring it. */
struct doorbell {
    _Atomic uint64_t *ticket; /* shared: 0 while its owner is awake, else a number never used before */
    int eventfd;
    uint64_t last;            /* the owner's last ticket, or the ticket that this waker rang last */
};

struct doorbell make_doorbell(void);
void arm(struct doorbell *bell);
void disarm(struct doorbell *bell);
void ring_if_asleep(struct doorbell *bell);

struct ring_words {
    _Alignas(64) _Atomic uint64_t tail;      /* the producer's */
    _Alignas(64) _Atomic uint64_t head;      /* the consumer's */
    _Alignas(64) _Atomic int wants_space;    /* set by a producer that sleeps, cleared by the consumer that rings */
};

struct ring {
    struct ring_words *words;
    uint8_t *data;
    size_t size;
};

struct ring make_ring(size_t size);

static inline size_t ring_filled(const struct ring *ring)
{
    /* Acquire, with ring_publish: whoever sees this tail sees every byte before it. */
    return atomic_load_explicit(&ring->words->tail, memory_order_acquire) -
           atomic_load_explicit(&ring->words->head, memory_order_relaxed);
}

static inline size_t ring_room(const struct ring *ring)
{
    /* Acquire, with ring_release: whoever sees this head may overwrite every byte before it. */
    return ring->size - (atomic_load_explicit(&ring->words->tail, memory_order_relaxed) -
                         atomic_load_explicit(&ring->words->head, memory_order_acquire));
}

/* Where the consumer finds what ring_filled counts, and where the producer puts up to ring_room bytes. */
static inline uint8_t *ring_first(const struct ring *ring)
{
    return ring->data + atomic_load_explicit(&ring->words->head, memory_order_relaxed) % ring->size;
}

static inline uint8_t *ring_end(const struct ring *ring)
{
    return ring->data + atomic_load_explicit(&ring->words->tail, memory_order_relaxed) % ring->size;
}

/* The producer has put `size` bytes at ring_end. Wakes the consumer. */
void ring_publish(struct ring *ring, size_t size, struct doorbell *consumer);

/* The consumer needs the first `size` bytes no longer. Wakes the producer if it waits for room. */
void ring_release(struct ring *ring, size_t size, struct doorbell *producer);

/* The producer, armed, is about to sleep until there is room. A fence must follow, as after arm. */
static inline void ring_want_space(struct ring *ring)
{
    atomic_store_explicit(&ring->words->wants_space, 1, memory_order_relaxed);
}

static inline bool ring_is_roomy(const struct ring *ring)
{
    return ring_room(ring) >= ring->size / RING_WAKE_FREE_PART;
}

#endif
