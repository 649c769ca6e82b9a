/* The I/O process's hot path: bytes between a non-blocking socket and a ring, for connection_pump.py.

   Each function does the usual case whole and leaves anything else, in a state that the pure path can go on from, to
   its caller. The descriptor belongs to a TcpStream, which says -1 once it is closed. No call waits; the GIL is kept,
   since giving it up for some microseconds costs more than nobody else in an I/O process could win. */

#include "pump.h"

#include "../../shm/core/layout.h"

#include <errno.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
    KIND_DATA = 1, /* records.DATA */
    RECORDS_PER_SEND = 256,
};

static int is_transient(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* Receiving. */

int outcome_of(ssize_t count, size_t asked)
{
    if (count <= 0)
        return count == 0 ? ENDED : is_transient(errno) ? DRAINED : -errno;
    return (size_t)count < asked ? DRAINED : MORE;
}

Py_ssize_t receive_once(PyObject *writer, const ReceiveOrder *order, int *outcome)
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
    *outcome = outcome_of(count, (size_t)room);
    if (count <= 0)
        return ring_abort(writer);
    if (ring_commit(writer, count, KIND_DATA, order->connection, order->epoch) < 0)
        return -1;
    return count;
}

int read_receive_order(PyObject *const *args, ReceiveOrder *order)
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

/* Both ways, for as long as there is something to move. */

typedef struct {
    PyObject *reader, *writer; /* borrowed from the line's tuple */
    ReceiveOrder order;
} Line;

enum {
    LINES_MAX = 64,
    URGENT_NS = 2000000, /* after the last message on a normal line bulk ones hold nobody up */
    BULK_TURNS = 8,      /* until then they are looked at in one turn of so many: an empty look is a system call */
};

/* A line is (reader, writer, fd, connection, epoch, size_max, size_min). 0, or -1 with an exception set. */
static int read_line(PyObject *object, Line *line)
{
    PyObject *parts[7];
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 7) {
        PyErr_SetString(PyExc_TypeError, "a line is a tuple of 7");
        return -1;
    }
    for (int i = 0; i < 7; i++)
        parts[i] = PyTuple_GetItem(object, i);
    if (!ring_is_reader(parts[0]) || !ring_is_writer(parts[1])) {
        PyErr_SetString(PyExc_TypeError, "a line has a compiled reader and a compiled writer");
        return -1;
    }
    PyObject *one = PyLong_FromLong(1);
    if (one == NULL)
        return -1;
    PyObject *order[7] = {parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], one};
    int status = read_receive_order(order, &line->order);
    Py_DECREF(one);
    line->reader = parts[0];
    line->writer = parts[1];
    return status;
}

/* Send what one ring holds. Bytes moved; -1: `*rest` says what is unusual, or is NULL and an exception is set. */
static Py_ssize_t send_line(const Line *line, PyObject **rest)
{
    Gathered gathered;
    if (gather(line->reader, (size_t)line->order.size_max, &gathered) < 0)
        return -1;
    if (gathered.count == 0 && !gathered.finish_seen)
        return 0;
    ssize_t sent = gathered.size == 0 ? 0 : send_gathered(line->order.fd, &gathered);
    if (sent <= 0 || (size_t)sent != gathered.size || gathered.finish_seen) {
        *rest = describe_rest(line->reader, &gathered, sent);
        return -1;
    }
    return ring_release(line->reader, gathered.count) < 0 ? -1 : sent;
}

/* Receive once into one ring. As send_line; what is unusual is an outcome. */
static Py_ssize_t receive_line(const Line *line, PyObject **rest)
{
    int outcome = DRAINED;
    Py_ssize_t received = receive_once(line->writer, &line->order, &outcome);
    if (received < 0 || (received > 0 && ring_publish(line->writer) < 0))
        return -1;
    if (outcome != DRAINED && outcome != MORE) {
        *rest = PyLong_FromLong(outcome);
        return -1;
    }
    return received;
}

/* The exception that is set, as an object, and none set any more. */
static PyObject *take_exception(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

/* One turn of a line, both ways. 1: bytes moved; 0: none; -1: something unusual, as send_line. */
static int serve_line(const Line *line, Py_ssize_t *moved, PyObject **rest)
{
    Py_ssize_t sent = send_line(line, rest);
    Py_ssize_t received = sent < 0 ? -1 : receive_line(line, rest);
    *moved += (sent > 0 ? sent : 0) + (received > 0 ? received : 0);
    return received < 0 ? -1 : sent > 0 || received > 0;
}

/* One turn of each line from `first` to before `end`, whose index is in `*at` if it is unusual. As serve_line. */
static int serve_lines(const Line *lines, int first, int end, Py_ssize_t *moved, PyObject **rest, int *at)
{
    int is_busy = 0;
    for (int i = first; i < end; i++) {
        int served = serve_line(&lines[i], &moved[i], rest);
        if (served < 0) {
            *at = i;
            return -1;
        }
        is_busy |= served;
    }
    return is_busy;
}

/* Move bytes over all lines until nothing moved for quiet_ns, or total_ns are over, or `watched` has a record. Lines from
   `bulk` on have one turn each, behind which those before have theirs, and fewer turns while these are in use. Returns
   the index of the line that met something unusual, -1 if none did. */
static int move_while_busy(const Line *lines, int count, int bulk, PyObject *watched, int64_t quiet_ns,
                           int64_t total_ns, Py_ssize_t *moved, PyObject **rest)
{
    static int64_t last_urgent; /* of all calls: when a normal line moved something */
    static unsigned turns;
    int64_t start = monotonic_ns(), last = start, now = start;
    for (;;) {
        int at = -1;
        int is_busy = serve_lines(lines, 0, bulk, moved, rest, &at);
        int is_urgent = is_busy;
        int looks_at_bulk = now - last_urgent >= URGENT_NS || turns++ % BULK_TURNS == 0;
        for (int i = bulk; is_busy >= 0 && i < count && looks_at_bulk; i++) {
            int served = serve_lines(lines, i, i + 1, moved, rest, &at);
            if (served > 0) {
                int others = serve_lines(lines, 0, bulk, moved, rest, &at);
                is_urgent |= others;
                served |= others;
            }
            is_busy = served < 0 ? -1 : is_busy | served;
        }
        if (is_busy < 0)
            return at;
        int is_empty = ring_is_empty(watched);
        if (is_empty < 0)
            PyErr_Clear(); /* whoever serves that ring meets the same error */
        now = monotonic_ns();
        if (is_busy)
            last = now;
        if (is_urgent)
            last_urgent = now;
        if (is_empty != 1 || now - start > total_ns || now - last > quiet_ns)
            return -1;
        if (!is_busy || (bulk < count && !is_urgent && now - last_urgent < URGENT_NS))
            sched_yield(); /* while only bulk is moved, who waits for this core may have a small message */
    }
}

static PyObject *pump_while_busy(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *line_objects, *watched;
    long long quiet_ns, total_ns;
    Line lines[LINES_MAX];
    Py_ssize_t moved[LINES_MAX] = {0}, bulk_count = 0;
    if (!PyArg_ParseTuple(args, "O!OLL|n", &PyTuple_Type, &line_objects, &watched, &quiet_ns, &total_ns, &bulk_count))
        return NULL;
    Py_ssize_t count = PyTuple_Size(line_objects);
    if (count > LINES_MAX || bulk_count < 0 || bulk_count > count || !ring_is_reader(watched)) {
        PyErr_SetString(PyExc_TypeError, "too many lines, or no compiled ring to watch");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_line(PyTuple_GetItem(line_objects, i), &lines[i]) < 0)
            return NULL;
    }
    PyObject *rest = NULL;
    int index = move_while_busy(lines, (int)count, (int)(count - bulk_count), watched, quiet_ns, total_ns, moved, &rest);
    if (index >= 0 && rest == NULL)
        rest = take_exception();
    PyObject *counts = PyList_New(0);
    for (Py_ssize_t i = 0; counts != NULL && i < count; i++) {
        PyObject *number = PyLong_FromSsize_t(moved[i]);
        if (number == NULL || PyList_Append(counts, number) < 0)
            Py_CLEAR(counts);
        Py_XDECREF(number);
    }
    if (counts == NULL) {
        Py_XDECREF(rest);
        return NULL;
    }
    return Py_BuildValue("(NiN)", counts, index, rest != NULL ? rest : Py_NewRef(Py_None));
}

/* Looking, for connections whose bytes are not moved here: the socket of each is asked, and nothing is taken off it. */

typedef struct {
    PyObject *reader; /* borrowed from the source's tuple */
    int fd;
} Source;

/* A source is (reader, fd). 0, or -1 with an exception set. */
static int read_source(PyObject *object, Source *source)
{
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 2 || !ring_is_reader(PyTuple_GetItem(object, 0))) {
        PyErr_SetString(PyExc_TypeError, "a source is a tuple of a compiled reader and a descriptor");
        return -1;
    }
    long fd = PyLong_AsLong(PyTuple_GetItem(object, 1));
    if (fd == -1 && PyErr_Occurred())
        return -1;
    source->reader = PyTuple_GetItem(object, 0);
    source->fd = fd < 0 || fd > INT32_MAX ? -1 : (int)fd;
    return 0;
}

/* A broken ring counts as one that has something: whoever serves it meets the error. */
static int ring_has_something(PyObject *reader)
{
    int is_empty = ring_is_empty(reader);
    if (is_empty < 0)
        PyErr_Clear();
    return is_empty != 1;
}

static int socket_has_something(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || !is_transient(errno);
}

static PyObject *look_around(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *objects, *watched;
    Py_ssize_t first;
    long long quiet_ns;
    Source sources[LINES_MAX];
    if (!PyArg_ParseTuple(args, "O!nOL", &PyTuple_Type, &objects, &first, &watched, &quiet_ns))
        return NULL;
    Py_ssize_t count = PyTuple_Size(objects);
    if (count > LINES_MAX || first < 0 || !ring_is_reader(watched)) {
        PyErr_SetString(PyExc_TypeError, "too many sources, a place below 0, or no compiled ring to watch");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_source(PyTuple_GetItem(objects, i), &sources[i]) < 0)
            return NULL;
    }
    for (int64_t start = monotonic_ns();;) {
        for (Py_ssize_t i = 0; i < 2 * count; i++) {
            Py_ssize_t place = (first % (2 * count) + i) % (2 * count);
            const Source *source = &sources[place / 2];
            if (place % 2 ? socket_has_something(source->fd) : ring_has_something(source->reader))
                return PyLong_FromSsize_t(place);
        }
        if (ring_has_something(watched) || monotonic_ns() - start > quiet_ns)
            return PyLong_FromLong(-1);
        sched_yield();
    }
}

static PyMethodDef pump_methods[] = {
    {"look_around", look_around, METH_VARARGS,
     PyDoc_STR("look_around($module, sources, first, watched, quiet_ns, /)\n--\n\n"
               "Look at every source (reader, fd) until one has something, quiet_ns are over, or the ring `watched` has\n"
               "a record; the core is offered to others in between. Returns its place, 2 i for the ring of source i and\n"
               "2 i + 1 for its socket, which has bytes, an end or an error; or -1. `first` is looked at first.")},
    {"pump_while_busy", pump_while_busy, METH_VARARGS,
     PyDoc_STR("pump_while_busy($module, lines, watched, quiet_ns, total_ns, bulk_count=0, /)\n--\n\n"
               "Move bytes both ways over every line (reader, writer, fd, connection, epoch, size_max, size_min) until\n"
               "nothing moved for quiet_ns, total_ns are over, or the ring `watched` has a record; the core is offered\n"
               "to others in between. The last bulk_count lines have one turn each before the others have the next.\n"
               "Returns (bytes moved on each line, index, rest): the index of a line that met\n"
               "something unusual, or -1, and what that is: an outcome of receive_into_ring, a tuple of send_from_ring,\n"
               "or an exception of the line's rings.")},
    {"receive_into_ring", (PyCFunction)(void (*)(void))receive_into_ring, METH_FASTCALL,
     PyDoc_STR("receive_into_ring($module, writer, fd, connection, epoch, size_max, size_min, batch, /)\n--\n\n"
               "Take what the socket has into the ring and publish it. Returns (bytes, outcome).")},
    {"send_from_ring", (PyCFunction)(void (*)(void))send_from_ring, METH_FASTCALL,
     PyDoc_STR("send_from_ring($module, reader, fd, size_max, /)\n--\n\n"
               "Send the records that are there. Returns the bytes sent and released, or a tuple of what is unusual.")},
    {NULL, NULL, 0, NULL},
};

int add_filler(PyObject *module); /* filler.c */

int add_engine(PyObject *module)
{
    if (add_filler(module) < 0 || PyModule_AddFunctions(module, pump_methods) < 0 ||
        PyModule_AddIntConstant(module, "DRAINED", DRAINED) < 0 ||
        PyModule_AddIntConstant(module, "MORE", MORE) < 0 || PyModule_AddIntConstant(module, "FULL", FULL) < 0 ||
        PyModule_AddIntConstant(module, "ENDED", ENDED) < 0)
        return -1;
    return 0;
}
