/* The layout of a segment and the ordering of its words, for the compiled ends of a ring.

   shm/counters.py, shm/record.py and shm/segment.py are the specification; a test compares the numbers. The memory is
   shared with a process that may store anything at any time, so words are loaded atomically, each value is loaded once
   into a private integer, and only that is checked and used. Positions are unsigned 64-bit byte counts; they are
   compared by their differences, which are well defined whatever the other side stored. */

#ifndef PARTYWIRE_LAYOUT_H
#define PARTYWIRE_LAYOUT_H

#include "ring.h"

#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the layout of a ring is little-endian"
#endif

enum {
    HEADER_SIZE = 4096,
    CAPACITY_MIN = 128,
    CAPACITY_MAX = 1 << 30,
    RECORD_HEADER_SIZE = 32,
    ALIGNMENT = 32,
    KIND_PAD = 0xFFFF,
};

enum {
    WORD_TAIL = 32,
    WORD_RECORDS_PUBLISHED = 33,
    WORD_SPACE_WANTED = 51,
    WORD_PRODUCER_BELLS = 53,
    WORD_HEAD = 64,
    WORD_RECORDS_RELEASED = 65,
    WORD_CONSUMER_BELLS = 83,
    WORD_DEPTH_MAX = 84,
};

/* A record's header as it lies in the ring, 32-byte aligned. */
typedef struct {
    uint32_t size;
    uint16_t kind;
    uint16_t flags;
    uint32_t connection;
    uint32_t epoch;
    uint64_t sequence;
    uint64_t reserved;
} RecordHeader;

_Static_assert(sizeof(RecordHeader) == RECORD_HEADER_SIZE, "a record header has 32 bytes and no holes");

/* The ring bytes of a record with `size` bytes of payload. `size` is below 2^32, or was checked against the capacity. */
static inline uint64_t ring_bytes(uint64_t size)
{
    return (size + RECORD_HEADER_SIZE + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

/* Acquire: whoever sees this value sees everything that its writer stored before it. */
static inline uint64_t load_word(const uint64_t *words, unsigned index)
{
    return __atomic_load_n(&words[index], __ATOMIC_ACQUIRE);
}

/* Release: whoever sees this value sees everything that was stored before it. */
static inline void store_word(uint64_t *words, unsigned index, uint64_t value)
{
    __atomic_store_n(&words[index], value, __ATOMIC_RELEASE);
}

/* A figure that nothing depends on. */
static inline void store_figure(uint64_t *words, unsigned index, uint64_t value)
{
    __atomic_store_n(&words[index], value, __ATOMIC_RELAXED);
}

/* The private snapshot of a header: each word is loaded exactly once, which a plain copy would not promise. */
static inline RecordHeader load_header(const unsigned char *place)
{
    const uint64_t *words = (const uint64_t *)(const void *)place;
    uint64_t copy[RECORD_HEADER_SIZE / 8];
    RecordHeader header;

    for (unsigned i = 0; i < RECORD_HEADER_SIZE / 8; i++)
        copy[i] = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
    memcpy(&header, copy, sizeof header);
    return header;
}

/* The mapping of one segment, held by a buffer so that it outlives whoever closes the segment.
   `words` is NULL while there is none: before __init__ and after close. */
typedef struct {
    uint64_t *words;
    unsigned char *data;
    uint64_t capacity;
    Py_buffer buffer;
} Mapping;

/* Hold the mapping of a Segment. 0, or -1 with an exception set and nothing held. */
int mapping_hold(Mapping *mapping, PyObject *segment);
void mapping_drop(Mapping *mapping);

/* What a side of a ring has to do between its store and its load of the other side's wish (fence.py). */
typedef struct {
    PyObject *waker; /* NULL: nothing but keeping the compiler in order; None: an atomic fence; else a callable */
    PyObject *observe; /* between the load of a position and what it allows; NULL where loads are ordered anyway */
} Ordering;

int ordering_init(Ordering *ordering, PyObject *fence);
int ordering_call(PyObject *callable);

static inline int ordering_wake(const Ordering *ordering)
{
    if (ordering->waker == NULL) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        return 0;
    }
    if (ordering->waker == Py_None) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        return 0;
    }
    return ordering_call(ordering->waker);
}

static inline int ordering_observe(const Ordering *ordering)
{
    return ordering->observe == NULL ? 0 : ordering_call(ordering->observe);
}

/* A bell, compiled or not; None stands for none. 1: rung; 0: not; -1: exception set. */
int bell_ring_if_asleep(PyObject *bell);
int bell_ring(PyObject *bell);

/* Call a cold method that is there to raise. Always -1 with an exception set. */
int refuse(PyObject *self, const char *method, const char *format, ...);

/* Call a cold method of which only the exception counts. 0, or -1 with an exception set. */
int call_method(PyObject *self, const char *method, const char *format, ...);

/* Arguments of a METH_FASTCALL | METH_KEYWORDS method, by position or by name, into `values` (borrowed), which holds the
   defaults or NULL. 0, or -1 with a TypeError set. */
int bind_arguments(PyObject *const *args, Py_ssize_t count, PyObject *keywords, const char *const *names,
                   Py_ssize_t names_count, Py_ssize_t required, PyObject **values);

/* An integer from 0 to `max`. 0, or -1 with a TypeError or ValueError set, which names the argument. */
int as_unsigned(PyObject *value, const char *name, uint64_t max, uint64_t *result);

/* A slice of a memoryview. NULL: exception set. */
PyObject *slice_view(PyObject *view, uint64_t start, uint64_t size);

int add_writer(PyObject *module);
int add_reader(PyObject *module);
int add_doorbell(PyObject *module);

#endif
