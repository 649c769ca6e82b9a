/* The ring and the bell as the compiled parts of the layers above see them.

   The objects are those of partywire._core: `WriterCore`, `ReaderCore` and `BellCore`, which RingWriter, RingReader and
   Bell of shm/ are built on. Every function is called with the GIL held, by the one thread that owns its end, and with
   no exception set. Layout, ordering and validation are those of shm/ring.py, which stays the specification. */

#ifndef PARTYWIRE_RING_H
#define PARTYWIRE_RING_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <time.h>

/* The monotonic clock in nanoseconds. */
static inline int64_t monotonic_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* One record, its header copied and checked. The payload lies in the ring until the record is released. */
typedef struct {
    const unsigned char *payload;
    uint32_t size;
    uint16_t kind;
    uint32_t connection;
    uint32_t epoch;
} RingRecord;

/* Whether an object is a WriterCore or ReaderCore, so that the functions below may be called with it. */
int ring_is_writer(PyObject *object);
int ring_is_reader(PyObject *object);

/* Commit one record of `size` bytes. 1: done, not published yet; 0: no room now, nothing changed; -1: exception set. */
int ring_write(PyObject *writer, const void *data, Py_ssize_t size, uint16_t kind, uint32_t connection, uint32_t epoch);

/* Lend from `size_min` to `size_max` bytes of contiguous room, as RingWriter.try_claim: 1: `place` and `size` are set,
   to be followed by ring_commit or ring_abort; 0: no room now, nothing changed; -1: exception set. */
int ring_claim(PyObject *writer, Py_ssize_t size_max, Py_ssize_t size_min, unsigned char **place, Py_ssize_t *size);

/* Turn the first `size` bytes of the open claim into a record, or give the claim back. 0, or -1 with an exception set. */
int ring_commit(PyObject *writer, Py_ssize_t size, uint16_t kind, uint32_t connection, uint32_t epoch);
int ring_abort(PyObject *writer);

/* Show what was committed to the consumer and wake it if it sleeps. 1: bell rung; 0: not; -1: exception set. */
int ring_publish(PyObject *writer);

/* Whether nothing was committed that the consumer has not given back, and more may be written. A hint if the consumer is
   another thread or process. */
int ring_is_consumed(PyObject *writer);

/* Refuse a record that will not stand beside others: RingWriter.request_space asks for all of the ring next. 0, or -1
   with an exception set. */
int ring_refuse_until_consumed(PyObject *writer);

/* Poll one more record, as RingReader.poll(1) does. 1: `record` is filled; 0: nothing new; -1: exception set. */
int ring_poll(PyObject *reader, RingRecord *record);

/* Whether nothing is published that was not polled. 1, 0, or -1 with an exception set. */
int ring_is_empty(PyObject *reader);

/* The same bytes as a read-only memoryview, from `offset` on, for a caller in Python. NULL: exception set. */
PyObject *ring_payload_view(PyObject *reader, const RingRecord *record, Py_ssize_t offset);

/* Give polled records back: the `count` oldest, all, or the front of the oldest as RingReader.release_part does.
   0, or -1 with an exception set. */
int ring_release(PyObject *reader, Py_ssize_t count);
int ring_release_all(PyObject *reader);
int ring_release_part(PyObject *reader, Py_ssize_t size_left);

/* Add the types and functions of each layer to the module. 0, or -1 with an exception set. */
int add_shm(PyObject *module);
int add_engine(PyObject *module);
int add_workers(PyObject *module);

#endif
