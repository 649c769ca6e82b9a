/* The compiled half of a worker: what is done for every message.

   The types here are bases of the classes in workers/ (Wait, Mailbox, Lane, Session, Slot, Worker). Fields that both
   halves use are members with the names that workers/hot_pure.py gives them; whatever is not hot is a method of the
   Python class and called by name. Everything runs with the GIL and in the one thread of the worker, and no function
   here is interrupted by a signal handler except inside a call into Python. */

#ifndef PARTYWIRE_WORKER_H
#define PARTYWIRE_WORKER_H

#include "../../shm/core/ring.h"

#include <sys/uio.h>

/* A FIFO of references. Grows by doubling; what a burst needed is freed when it is empty again. */
typedef struct {
    PyObject_HEAD
    PyObject **items; /* capacity entries, those from `first` on (modulo capacity) are owned */
    Py_ssize_t capacity, first, count;
} Queue;

/* Worker: the two words of it that every message touches. */
typedef struct {
    PyObject_HEAD
    long long inbox_size, inbox_size_max;
    char driving;
} Worker;

typedef struct {
    PyObject_HEAD
    PyObject *worker;
    PyObject *waker; /* NULL or None: nobody stands here */
    double deadline, timer_at;
} Wait;

typedef struct {
    Wait wait;
    PyObject *session, *lane, *failure;
    Queue *queue; /* of entries: a `bytes` is a whole BYTES message, everything else a Frame tuple */
    long behind;
    char is_sending;
} Mailbox;

/* Whatever a worker receives from: a lane, or a control lane. */
typedef struct {
    PyObject_HEAD
    PyObject *reader;
    char is_urgent; /* whether `receive` has something to do although nothing may be new in the ring */
} Receiver;

typedef struct {
    Receiver receiver;
    PyObject *worker, *writer;
    PyObject *mailboxes; /* dict: session id -> Mailbox */
    PyObject *pump;      /* who moves the rings' bytes, where that is in this process; else NULL or None */
    char *gathered;      /* small frames that are not in the ring yet */
    Py_ssize_t gathered_size, gathered_capacity;
    long long parts_size, parts_size_max, small_size_max, whole_size_max;
    Py_ssize_t fragment_size, record_size_max; /* of the writer */
    Py_ssize_t slice_size;                     /* what one `receive` takes before others have their turn */
    PyObject *cut;   /* a body of which more is to come: a bytes or bytearray that nobody else has seen, or NULL */
    char *cut_data;  /* its memory */
    uint32_t cut_session, cut_length, cut_filled;
    unsigned char cut_descriptor;
    unsigned int fragment_session, fragment_missing; /* data of an open FRAGMENT frame that is still to come */
    long long messages_received, bytes_received, bytes_sent;
    unsigned int connection, epoch;
    uint32_t body_before; /* length of the last body that was received where it stays, 0 if a whole one came since */
    char is_dirty, is_over, is_between_frames; /* receiver.is_urgent: a receive was interrupted */
} Lane;

typedef struct {
    PyObject_HEAD
    PyObject *worker;
    PyObject *mailboxes; /* dict: name or index of a peer -> Mailbox */
    unsigned int id;
    int next, previous;
} Session;

typedef struct {
    PyObject_HEAD
    PyObject *coroutine, *session, *wait, *task, *ready;
    char is_done;
} Slot;

extern PyTypeObject *queue_type, *worker_type, *wait_type, *mailbox_type, *receiver_type, *lane_type, *session_type, *slot_type;

static inline PyTypeObject *type_of(void *object)
{
    return Py_TYPE((PyObject *)object);
}

/* Whether an object is of a type or of a class built on it. `known` remembers the class that is asked about all the
   time, and keeps it alive. */
static inline int is_a(PyObject *object, PyTypeObject *type, PyTypeObject **known)
{
    PyTypeObject *actual = Py_TYPE(object);
    if (actual == *known)
        return 1;
    if (!PyType_IsSubtype(actual, type))
        return 0;
    if (*known == NULL)
        *known = (PyTypeObject *)Py_NewRef((PyObject *)actual);
    return 1;
}

static inline int is_worker(PyObject *object)
{
    static PyTypeObject *known;
    return object != NULL && is_a(object, worker_type, &known);
}

static inline int is_mailbox(PyObject *object)
{
    static PyTypeObject *known;
    return is_a(object, mailbox_type, &known);
}

static inline int is_lane(PyObject *object)
{
    static PyTypeObject *known;
    return object != NULL && is_a(object, lane_type, &known);
}

static inline int is_slot(PyObject *object)
{
    static PyTypeObject *known;
    return is_a(object, slot_type, &known);
}

static inline int is_wait(PyObject *object)
{
    static PyTypeObject *known; /* the mailbox: what is waited at most of all */
    return is_a(object, wait_type, &known);
}

Queue *queue_new(void);
int queue_push(Queue *queue, PyObject *item); /* takes a new reference; -1 with an exception when memory is short */
PyObject *queue_pop(Queue *queue);            /* hands the reference over; NULL without an exception when empty */

/* Resume whoever stands at a wait. 0, or -1 with an exception set. */
int wait_wake(Wait *wait);

/* Append a small BYTES frame to what a lane has gathered, and tell the worker. 0, or -1 with an exception set. */
int lane_append_bytes(Lane *lane, unsigned int session, PyObject *value);

/* Write one large BYTES frame that needs no fragments, behind what has gathered, and publish it. 1; 0: the Python half
   has to, and nothing of it was written; -1: exception set. */
int lane_write_bytes(Lane *lane, unsigned int session, PyObject *value);

/* Whether who moves the lane's bytes is in this process. */
static inline int lane_is_joined(const Lane *lane)
{
    return lane->pump != NULL && lane->pump != Py_None;
}

/* Send what is gathered and then `parts` straight to the socket, if everything before is on its way and the socket is
   open. `parts[0]` is free for what is gathered. What the kernel does not take is committed to the ring, not published.
   1: all of it is sent or committed; 0: nothing was done; -1: exception set, nothing was sent. */
int lane_send_direct(Lane *lane, struct iovec *parts, int count);

/* Commit what is gathered to the ring. 1; 0: no room now; -1: exception set. */
int lane_write_gathered(Lane *lane);

/* Hand over the body that a record has cut, which is whole now. 0, or -1 with an exception set. */
int lane_hand_over_cut(Lane *lane);

/* receive() of a lane -> the count of records taken in. */
PyObject *lane_receive(Lane *lane, PyObject *ignored);

/* A lane that __init__ never saw has no rings. 0, or -1 with an exception set. */
int lane_check(Lane *lane);

/* send_direct() of a lane -> whether everything that it has to send is sent. */
PyObject *lane_send_gathered(Lane *lane, PyObject *ignored);

/* Whether the exception that is set is no Exception (Ctrl-C in a call into Python): nobody here deals with it. */
static inline int is_interruption(void)
{
    return !PyErr_ExceptionMatches(PyExc_Exception);
}

int add_waits(PyObject *module);
int add_lanes(PyObject *module);
int add_sessions(PyObject *module);
int add_direct(PyObject *module);

PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *spec, PyTypeObject *base);

#endif
