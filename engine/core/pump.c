/* The I/O process's hot path: bytes between a non-blocking socket and a ring, for connection_pump.py.

   Each function does the usual case whole and leaves anything else, in a state that the pure path can go on from, to
   its caller. The descriptor belongs to a TcpStream, which says -1 once it is closed. No call waits; the GIL is kept,
   since giving it up for some microseconds costs more than nobody else in an I/O process could win. */

#include "../../shm/core/layout.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
    KIND_DATA = 1, /* records.DATA */
    RECORDS_PER_SEND = 256,
};

/* How a receive ended; the negative of an errno stands for a broken socket. */
enum {
    DRAINED = 0, /* the socket has nothing more */
    MORE = 1,    /* it may have more, but others have their turn first */
    FULL = 2,    /* the ring has no room */
    ENDED = 3,   /* end of file */
};

static int is_transient(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* Receiving. */

typedef struct {
    int fd;
    uint32_t connection;
    uint32_t epoch;
    Py_ssize_t size_max; /* of one receive */
    Py_ssize_t size_min; /* room below this is not worth a system call */
    int batch;           /* receives of one call */
} ReceiveOrder;

/* Receive into one claim. Bytes taken; `outcome` says what follows. -1: exception set. */
static Py_ssize_t receive_once(PyObject *writer, const ReceiveOrder *order, int *outcome)
{
    unsigned char *place = NULL;
    Py_ssize_t room = 0;
    int status = ring_claim(writer, order->size_max, order->size_min, &place, &room);
    if (status < 0)
        return -1;
    if (status == 0) {
        *outcome = FULL;
        return 0;
    }
    ssize_t count = recv(order->fd, place, (size_t)room, MSG_DONTWAIT);
    if (count <= 0) {
        *outcome = count == 0 ? ENDED : is_transient(errno) ? DRAINED : -errno;
        return ring_abort(writer);
    }
    *outcome = count < room ? DRAINED : MORE;
    if (ring_commit(writer, count, KIND_DATA, order->connection, order->epoch) < 0)
        return -1;
    return count;
}

static int read_receive_order(PyObject *const *args, ReceiveOrder *order)
{
    uint64_t connection, epoch, size_max, size_min, batch;
    long fd = PyLong_AsLong(args[1]);
    if (fd == -1 && PyErr_Occurred())
        return -1;
    if (as_unsigned(args[2], "connection", UINT32_MAX, &connection) < 0 ||
        as_unsigned(args[3], "epoch", UINT32_MAX, &epoch) < 0 ||
        as_unsigned(args[4], "size_max", CAPACITY_MAX, &size_max) < 0 ||
        as_unsigned(args[5], "size_min", CAPACITY_MAX, &size_min) < 0 ||
        as_unsigned(args[6], "batch", INT16_MAX, &batch) < 0)
        return -1;
    order->fd = fd < 0 || fd > INT32_MAX ? -1 : (int)fd;
    order->connection = (uint32_t)connection;
    order->epoch = (uint32_t)epoch;
    order->size_max = (Py_ssize_t)size_max;
    order->size_min = (Py_ssize_t)size_min;
    order->batch = (int)batch;
    return 0;
}

static PyObject *receive_into_ring(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ReceiveOrder order;
    if (count != 7 || !ring_is_writer(args[0])) {
        PyErr_SetString(PyExc_TypeError, "receive_into_ring takes a compiled writer and 6 numbers");
        return NULL;
    }
    if (read_receive_order(args, &order) < 0)
        return NULL;
    Py_ssize_t moved = 0;
    int outcome = MORE;
    for (int i = 0; i < order.batch && outcome == MORE; i++) {
        Py_ssize_t received = receive_once(args[0], &order, &outcome);
        if (received < 0)
            return NULL;
        moved += received;
    }
    if (ring_publish(args[0]) < 0)
        return NULL;
    return Py_BuildValue("(ni)", moved, outcome);
}

/* Sending. */

typedef struct {
    RingRecord records[RECORDS_PER_SEND];
    int count;
    int finish_seen; /* a record that is no DATA stood behind them */
    size_t size;     /* payload of all of them */
} Gathered;

/* Poll records that hold up to `size_max` bytes. 0, or -1 with an exception set. */
static int gather(PyObject *reader, size_t size_max, Gathered *gathered)
{
    gathered->count = gathered->finish_seen = 0;
    gathered->size = 0;
    while (gathered->count < RECORDS_PER_SEND && gathered->size < size_max) {
        RingRecord *record = &gathered->records[gathered->count];
        int status = ring_poll(reader, record);
        if (status <= 0)
            return status;
        if (record->kind != KIND_DATA) {
            gathered->finish_seen = 1;
            return 0;
        }
        gathered->count += 1;
        gathered->size += record->size;
    }
    return 0;
}

/* One sendmsg of everything gathered. The bytes that the kernel took, or the negative of an errno. */
static ssize_t send_gathered(int fd, const Gathered *gathered)
{
    struct iovec parts[RECORDS_PER_SEND];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)gathered->count};
    for (int i = 0; i < gathered->count; i++) {
        parts[i].iov_base = (void *)(uintptr_t)gathered->records[i].payload;
        parts[i].iov_len = gathered->records[i].size;
    }
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

/* Give back what the kernel took, and append views of the rest to `unsent`. 0, or -1 with an exception set. */
static int release_sent(PyObject *reader, const Gathered *gathered, size_t sent, PyObject *unsent)
{
    int whole = 0;
    while (whole < gathered->count && sent >= gathered->records[whole].size)
        sent -= gathered->records[whole++].size;
    if (ring_release(reader, whole) < 0)
        return -1;
    if (sent > 0 && ring_release_part(reader, (Py_ssize_t)(gathered->records[whole].size - sent)) < 0)
        return -1;
    for (int i = whole; i < gathered->count; i++) {
        PyObject *view = ring_payload_view(reader, &gathered->records[i], i == whole ? (Py_ssize_t)sent : 0);
        int status = view == NULL ? -1 : PyList_Append(unsent, view);
        Py_XDECREF(view);
        if (status < 0)
            return -1;
    }
    return 0;
}

/* What is unusual: (bytes moved, errno or 0, whether FINISH was met, views of what is unsent). */
static PyObject *describe_rest(PyObject *reader, const Gathered *gathered, ssize_t sent)
{
    int error = sent < 0 && !is_transient((int)-sent) ? (int)-sent : 0;
    size_t moved = sent < 0 ? 0 : (size_t)sent;
    PyObject *unsent = PyList_New(0);
    if (unsent == NULL || release_sent(reader, gathered, moved, unsent) < 0) {
        Py_XDECREF(unsent);
        return NULL;
    }
    return Py_BuildValue("(niNN)", (Py_ssize_t)moved, error, PyBool_FromLong(gathered->finish_seen), unsent);
}

static PyObject *send_from_ring(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Gathered gathered;
    uint64_t size_max;
    if (count != 3 || !ring_is_reader(args[0])) {
        PyErr_SetString(PyExc_TypeError, "send_from_ring takes a compiled reader and 2 numbers");
        return NULL;
    }
    long fd = PyLong_AsLong(args[1]);
    if ((fd == -1 && PyErr_Occurred()) || as_unsigned(args[2], "size_max", CAPACITY_MAX, &size_max) < 0 ||
        gather(args[0], size_max, &gathered) < 0)
        return NULL;
    if (gathered.count == 0 && !gathered.finish_seen)
        return PyLong_FromLong(0);
    ssize_t sent = gathered.size == 0 ? 0 : send_gathered(fd < 0 || fd > INT32_MAX ? -1 : (int)fd, &gathered);
    if (sent <= 0 || (size_t)sent != gathered.size || gathered.finish_seen)
        return describe_rest(args[0], &gathered, sent);
    if (ring_release(args[0], gathered.count) < 0)
        return NULL;
    return PyLong_FromSsize_t(sent);
}

static PyMethodDef pump_methods[] = {
    {"receive_into_ring", (PyCFunction)(void (*)(void))receive_into_ring, METH_FASTCALL,
     PyDoc_STR("receive_into_ring($module, writer, fd, connection, epoch, size_max, size_min, batch, /)\n--\n\n"
               "Take what the socket has into the ring and publish it. Returns (bytes, outcome).")},
    {"send_from_ring", (PyCFunction)(void (*)(void))send_from_ring, METH_FASTCALL,
     PyDoc_STR("send_from_ring($module, reader, fd, size_max, /)\n--\n\n"
               "Send the records that are there. Returns the bytes sent and released, or a tuple of what is unusual.")},
    {NULL, NULL, 0, NULL},
};

int add_engine(PyObject *module)
{
    if (PyModule_AddFunctions(module, pump_methods) < 0 || PyModule_AddIntConstant(module, "DRAINED", DRAINED) < 0 ||
        PyModule_AddIntConstant(module, "MORE", MORE) < 0 || PyModule_AddIntConstant(module, "FULL", FULL) < 0 ||
        PyModule_AddIntConstant(module, "ENDED", ENDED) < 0)
        return -1;
    return 0;
}
