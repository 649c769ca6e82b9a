/* Lanes whose pump is in this process (engine/in_process): bytes that need not stand in a ring pass it by.

   On the way out, what the kernel takes at once is sent from where it lies. On the way in, the rest of a body that a
   record has cut is received where it will stay. Either happens only while the ring in between is empty, so the order of
   bytes is that of the ring. */

#include "../../engine/core/pump.h"

#include "worker.h"

#include <string.h>
#include <sys/socket.h>

#define RECORD_DATA 1          /* engine/records.py */
#define START_PART 16          /* engine/frame_buffer.py */
#define HEADERS_SIZE 64        /* more than any */
#define MISSING_MIN (16 * 1024) /* of a body: less is copied for less than a system call of its own costs */
#define BODY_MIN (48 * 1024)    /* smaller ones come several at a time through the ring */

static PyObject *name_direct_fd;

/* The pump's descriptor, or -1 while bytes have to take their turn in the ring; -2 with an exception set. */
static int direct_fd(Lane *lane)
{
    if (!lane_is_joined(lane) || lane->is_over || !ring_is_consumed(lane->writer))
        return -1;
    PyObject *number = PyObject_GetAttr(lane->pump, name_direct_fd);
    if (number == NULL)
        return -2;
    long fd = PyLong_AsLong(number);
    Py_DECREF(number);
    if (fd == -1 && PyErr_Occurred())
        return -2;
    /* A property of Python's may have run a signal handler, and that anything. */
    return fd < 0 || fd > INT32_MAX || lane->is_over || !ring_is_consumed(lane->writer) ? -1 : (int)fd;
}

/* Copy what stands behind the first `sent` bytes of the parts. */
static void copy_rest(const struct iovec *parts, int count, size_t sent, unsigned char *to)
{
    for (int at = 0; at < count; at++) {
        size_t size = parts[at].iov_len;
        if (sent >= size) {
            sent -= size;
            continue;
        }
        memcpy(to, (const char *)parts[at].iov_base + sent, size - sent);
        to += size - sent;
        sent = 0;
    }
}

int lane_send_direct(Lane *lane, struct iovec *parts, int count)
{
    int fd = direct_fd(lane);
    if (fd < 0)
        return fd == -1 ? 0 : -1;
    parts[0].iov_base = lane->gathered;
    parts[0].iov_len = (size_t)lane->gathered_size;
    Py_ssize_t total = 0;
    for (int at = 0; at < count; at++)
        total += (Py_ssize_t)parts[at].iov_len;
    if (total > lane->record_size_max)
        return 0;
    unsigned char *place;
    Py_ssize_t room;
    int claimed = ring_claim(lane->writer, total, total, &place, &room); /* before the first byte is out */
    if (claimed <= 0)
        return claimed;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) /* the pump meets the same, and deals with it */
        return ring_abort(lane->writer);
    if (sent == total) {
        if (ring_abort(lane->writer) < 0)
            return -1;
    } else {
        copy_rest(parts, count, (size_t)sent, place);
        if (ring_commit(lane->writer, total - sent, RECORD_DATA, lane->connection, lane->epoch) < 0)
            return -1;
    }
    lane->gathered_size = 0;
    lane->parts_size = 0;
    lane->bytes_sent += total;
    return 1;
}

PyObject *lane_send_gathered(Lane *lane, PyObject *Py_UNUSED(ignored))
{
    if (lane_check(lane) < 0)
        return NULL;
    struct iovec parts[1];
    if (lane->gathered_size > 0) {
        int sent = lane_send_direct(lane, parts, 1);
        if (sent < 0)
            return NULL;
        if (sent == 0)
            Py_RETURN_FALSE;
    }
    if (lane->is_over || !ring_is_consumed(lane->writer))
        Py_RETURN_FALSE;
    lane->is_dirty = 0;
    Py_RETURN_TRUE;
}

/* Receive more of a cut body where it lies. Bytes taken; `outcome` as of receive_once. -1: exception set. */
static Py_ssize_t receive_cut(Lane *lane, int fd, int *outcome)
{
    size_t missing = lane->cut_length - lane->cut_filled;
    ssize_t count = recv(fd, lane->cut_data + lane->cut_filled, missing, MSG_DONTWAIT);
    *outcome = outcome_of(count, missing);
    if (count <= 0)
        return 0;
    lane->cut_filled += (uint32_t)count;
    lane->bytes_received += count;
    if (lane->cut_filled < lane->cut_length)
        return count;
    lane->receiver.is_urgent = 1; /* found set, an exception has interrupted this */
    if (lane_hand_over_cut(lane) < 0)
        return -1;
    lane->receiver.is_urgent = 0;
    return count;
}

/* Receive more of an open FRAGMENT where its message is put together. As receive_cut; -2: it has to pass the ring. */
static Py_ssize_t receive_fragment(Lane *lane, int fd, int *outcome)
{
    lane->receiver.is_urgent = 1;
    PyObject *received = PyObject_CallMethod((PyObject *)lane, "receive_fragment", "i", fd);
    if (received == NULL)
        return -1;
    Py_ssize_t count = -2;
    int is_wrong = received != Py_None && !PyArg_ParseTuple(received, "ni", &count, outcome);
    Py_DECREF(received);
    if (is_wrong)
        return -1;
    lane->receiver.is_urgent = 0;
    if (count > 0) {
        lane->bytes_received += count;
        lane->fragment_missing -= (unsigned int)count; /* it was asked for no more */
    }
    return count;
}

/* Receive into the ring, and deliver what is in it. As receive_cut. */
static Py_ssize_t receive_through_ring(Lane *lane, PyObject *writer, const ReceiveOrder *order, int *outcome)
{
    Py_ssize_t count = receive_once(writer, order, outcome);
    if (count <= 0)
        return count;
    if (ring_publish(writer) < 0)
        return -1;
    PyObject *received = lane_receive(lane, NULL);
    Py_XDECREF(received);
    return received == NULL ? -1 : count;
}

/* Whether many of the next bytes of the socket belong to a body of which some are there. */
static int is_amid_body(Lane *lane)
{
    uint32_t missing = lane->cut != NULL ? lane->cut_length - lane->cut_filled : lane->fragment_missing;
    if (missing < MISSING_MIN || lane->receiver.is_urgent || lane->is_over)
        return 0;
    int is_empty = ring_is_empty(lane->receiver.reader);
    if (is_empty < 0)
        PyErr_Clear(); /* the lane meets the same error when it looks */
    return is_empty == 1;
}

/* Behind one large body another one often begins, of which only as much passes the ring as it takes to trust it. */
static ReceiveOrder order_of_start(const Lane *lane, const ReceiveOrder *order)
{
    ReceiveOrder start = *order;
    Py_ssize_t size = (Py_ssize_t)lane->body_before / START_PART + HEADERS_SIZE;
    if (size < start.size_min)
        size = start.size_min;
    if (lane->body_before > 0 && size < start.size_max)
        start.size_max = size;
    return start;
}

/* One receive, delivered. Bytes taken; `outcome` as of receive_once. -1: exception set. */
static Py_ssize_t receive_some(Lane *lane, PyObject *writer, const ReceiveOrder *order, int *outcome)
{
    if (is_amid_body(lane)) {
        uint32_t length = lane->cut != NULL ? lane->cut_length : lane->fragment_missing;
        Py_ssize_t count = lane->cut != NULL ? receive_cut(lane, order->fd, outcome)
                                             : receive_fragment(lane, order->fd, outcome);
        if (count != -2) {
            if (length > lane->body_before && length >= BODY_MIN)
                lane->body_before = length;
            return count;
        }
    }
    ReceiveOrder start = order_of_start(lane, order);
    Py_ssize_t count = receive_through_ring(lane, writer, &start, outcome);
    if (!is_amid_body(lane) && lane->is_between_frames)
        lane->body_before = 0;
    return count;
}

/* receive_joined(writer, fd, connection, epoch, size_max, size_min, batch, lane) -> (bytes, outcome): receive_into_ring
   for the ring that `lane` reads in this process, and `receive` of that lane. */
static PyObject *receive_joined(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    ReceiveOrder order;
    if (count != 8 || !ring_is_writer(args[0]) || !is_lane(args[7])) {
        PyErr_SetString(PyExc_TypeError, "receive_joined takes a compiled writer, 6 numbers and a compiled lane");
        return NULL;
    }
    Lane *lane = (Lane *)args[7];
    if (lane_check(lane) < 0 || read_receive_order(args, &order) < 0)
        return NULL;
    Py_ssize_t moved = 0;
    int outcome = MORE;
    /* For a lane that is over as well, which throws bytes away: behind them is the end of the stream, and what nobody
       takes stays readable. But whoever ends it in here may close the descriptor too. */
    do {
        Py_ssize_t received = receive_some(lane, args[0], &order, &outcome);
        if (received < 0)
            return NULL;
        moved += received;
    } while (outcome == MORE && moved < order.batch * order.size_max && !lane->is_over);
    return Py_BuildValue("(ni)", moved, outcome);
}

static PyMethodDef functions[] = {
    {"receive_joined", (PyCFunction)(void (*)(void))receive_joined, METH_FASTCALL,
     PyDoc_STR("receive_joined($module, writer, fd, connection, epoch, size_max, size_min, batch, lane, /)\n--\n\n"
               "Take what the socket has through the ring, or past it, to the mailboxes of the lane that reads it.\n"
               "Returns (bytes, outcome) as receive_into_ring does.")},
    {NULL, NULL, 0, NULL},
};

int add_direct(PyObject *module)
{
    name_direct_fd = PyUnicode_InternFromString("direct_fd");
    return name_direct_fd == NULL ? -1 : PyModule_AddFunctions(module, functions);
}
