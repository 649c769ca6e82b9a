/* The hot half of a lane: gathering small frames, and cutting what arrived into messages.

   The byte layout is that of docs/wire.md. What may be done here without a second look is told by `set_frame_kinds`,
   whose tables are made from FRAME_TABLE; everything else (cut frames, fragments, resets, unknown sessions) is handed
   to the Python half, one frame at a time. */

#include "../../engine/core/pump.h"

#include "worker.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

PyTypeObject *lane_type;

#define HEADER_SIZE 9
#define FIXED_HEADER_SIZE 5
#define FRAGMENT_BEGIN_HEADER_SIZE 14
#define FRAGMENT_BEGIN 0x82
#define FRAGMENT 0x83
#define FRAGMENT_SIZE_MIN (16 * 1024) /* workers/hot_pure.py */
#define DIRECT_SIZE_MIN (32 * 1024)   /* of a frame: a smaller one costs less to copy than a system call of its own */
#define WAIT_SIZE_MIN (192 * 1024)    /* the same for a copy into the ring and the wait for the bytes before it */
#define START_PART 16                 /* engine/frame_buffer.py */
#define LINK_SESSION 0xFFFFFFFFu
#define MESSAGE_OVERHEAD 128 /* workers/mailbox.py */
#define RECORD_DATA 1        /* engine/records.py */
#define RECORDS_MAX 256
#define SLICE_SIZE (1 << 20)
#define GATHERED_CAPACITY_MIN (16 * 1024)

enum { KIND_CAREFUL, KIND_FIXED, KIND_PLAIN, KIND_WRITABLE, KIND_FRAGMENT };

static struct {
    unsigned char kind[256], fixed_size[256], divisor[256], minimum[256];
    unsigned char bytes_descriptor;
    uint32_t body_max;
} frames;

/* Little-endian hosts only; shm/fence.py refuses others. */
typedef struct {
    uint32_t value;
} __attribute__((packed, may_alias)) Unaligned;

/* The ring is shared with a process that may store anything at any time: each value is loaded once, into a private
   integer, and only that is checked and used. Volatile, so that the compiler does not load it again instead of keeping
   it. */
static uint32_t load_u32(const unsigned char *at)
{
    return ((const volatile Unaligned *)(const volatile void *)at)->value;
}

static unsigned char load_u8(const unsigned char *at)
{
    return *(const volatile unsigned char *)at;
}

/* set_frame_kinds(kinds, fixed_sizes, divisors, minimums, bytes_descriptor, body_max) */
static PyObject *set_frame_kinds(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *tables[4];
    Py_ssize_t sizes[4];
    unsigned char bytes_descriptor;
    unsigned int body_max;
    if (!PyArg_ParseTuple(args, "y#y#y#y#bI", &tables[0], &sizes[0], &tables[1], &sizes[1], &tables[2], &sizes[2],
                          &tables[3], &sizes[3], &bytes_descriptor, &body_max))
        return NULL;
    for (int at = 0; at < 4; at++) {
        if (sizes[at] != 256) {
            PyErr_SetString(PyExc_ValueError, "a table of descriptors has 256 entries");
            return NULL;
        }
    }
    for (int descriptor = 0; descriptor < 256; descriptor++) {
        if (tables[2][descriptor] == 0) {
            PyErr_SetString(PyExc_ValueError, "no element has 0 bytes");
            return NULL;
        }
    }
    memcpy(frames.kind, tables[0], 256);
    memcpy(frames.fixed_size, tables[1], 256);
    memcpy(frames.divisor, tables[2], 256);
    memcpy(frames.minimum, tables[3], 256);
    frames.bytes_descriptor = bytes_descriptor;
    frames.body_max = body_max;
    Py_RETURN_NONE;
}

/* Gathering. */

static int lane_reserve(Lane *lane, Py_ssize_t size)
{
    if (size > PY_SSIZE_T_MAX / 4 - lane->gathered_size) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t needed = lane->gathered_size + size;
    if (needed <= lane->gathered_capacity)
        return 0;
    Py_ssize_t capacity = lane->gathered_capacity ? lane->gathered_capacity : GATHERED_CAPACITY_MIN;
    while (capacity < needed)
        capacity *= 2;
    char *gathered = PyMem_Realloc(lane->gathered, (size_t)capacity);
    if (gathered == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    lane->gathered = gathered;
    lane->gathered_capacity = capacity;
    return 0;
}

int lane_check(Lane *lane)
{
    if (lane->worker != NULL && lane->writer != NULL && lane->receiver.reader != NULL)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the lane was never made");
    return -1;
}

static int lane_mark_dirty(Lane *lane)
{
    PyObject *done = PyObject_CallMethod((PyObject *)lane, "mark_dirty", NULL);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return 0;
}

int lane_append_bytes(Lane *lane, unsigned int session, PyObject *value)
{
    char *data;
    Py_ssize_t size;
    /* Dirty first: what an exception keeps from being marked would wait for the next send. */
    if (!lane->is_dirty && lane_mark_dirty(lane) < 0)
        return -1;
    if (PyBytes_AsStringAndSize(value, &data, &size) < 0 || lane_reserve(lane, size + HEADER_SIZE) < 0)
        return -1;
    char *at = lane->gathered + lane->gathered_size;
    uint32_t length = (uint32_t)size;
    memcpy(at, &session, 4);
    at[4] = (char)frames.bytes_descriptor;
    memcpy(at + 5, &length, 4);
    memcpy(at + HEADER_SIZE, data, (size_t)size);
    lane->gathered_size += size + HEADER_SIZE;
    lane->parts_size += size + HEADER_SIZE;
    return 0;
}

/* gather(parts): append buffers; the caller counts them in parts_size, as it does for the pure core. */
static PyObject *lane_gather(Lane *lane, PyObject *parts)
{
    PyObject *iterator = PyObject_GetIter(parts), *part;
    if (iterator == NULL)
        return NULL;
    Py_ssize_t before = lane->gathered_size;
    while ((part = PyIter_Next(iterator)) != NULL) {
        Py_buffer view;
        int failed = PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0;
        if (!failed) {
            failed = lane_reserve(lane, view.len) < 0;
            if (!failed) {
                memcpy(lane->gathered + lane->gathered_size, view.buf, (size_t)view.len);
                lane->gathered_size += view.len;
            }
            PyBuffer_Release(&view);
        }
        Py_DECREF(part);
        if (failed)
            break;
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred()) {
        lane->gathered_size = before; /* a frame is gathered whole or not at all */
        return NULL;
    }
    Py_RETURN_NONE;
}

/* One record of whole frames. What a record does not hold (thousands of resets at once) is cut at any byte, which a byte
   stream does not mind. */
int lane_write_gathered(Lane *lane)
{
    while (lane->gathered_size > 0) {
        Py_ssize_t size = lane->gathered_size < lane->record_size_max ? lane->gathered_size : lane->record_size_max;
        int written = ring_write(lane->writer, lane->gathered, size, RECORD_DATA, lane->connection, lane->epoch);
        if (written <= 0)
            return written;
        lane->bytes_sent += size;
        lane->gathered_size -= size;
        if (lane->gathered_size > 0)
            memmove(lane->gathered, lane->gathered + size, (size_t)lane->gathered_size);
    }
    lane->parts_size = 0;
    return 1;
}

/* write_gathered() -> whether it is in the ring (not published). */
static PyObject *write_gathered(Lane *lane, PyObject *Py_UNUSED(ignored))
{
    if (lane_check(lane) < 0)
        return NULL;
    int written = lane_write_gathered(lane);
    return written < 0 ? NULL : PyBool_FromLong(written);
}

static void pack_header(unsigned char *at, uint32_t session, unsigned char descriptor, uint32_t length)
{
    memcpy(at, &session, 4);
    at[4] = descriptor;
    memcpy(at + 5, &length, 4);
}

/* A large message that is written frame by frame. */
typedef struct {
    uint32_t session, length;
    unsigned char descriptor;
    const char *head, *body;
    Py_ssize_t head_size, body_size;
} Large;

static void copy_range(const Large *large, Py_ssize_t position, unsigned char *to, Py_ssize_t size)
{
    if (position < large->head_size) {
        Py_ssize_t part = large->head_size - position < size ? large->head_size - position : size;
        memcpy(to, large->head + position, (size_t)part);
        to += part;
        position += part;
        size -= part;
    }
    if (size > 0)
        memcpy(to, large->body + (position - large->head_size), (size_t)size);
}

/* The header of the frame that holds `size` bytes of a large message from `position` on. Returns its size. */
static Py_ssize_t pack_header_at(const Large *large, int is_whole, Py_ssize_t position, Py_ssize_t size, unsigned char *at)
{
    if (is_whole) {
        pack_header(at, large->session, large->descriptor, large->length);
    } else if (position == 0) {
        pack_header(at, large->session, FRAGMENT_BEGIN, (uint32_t)(size + 5));
        at[HEADER_SIZE] = large->descriptor;
        memcpy(at + HEADER_SIZE + 1, &large->length, 4);
        return FRAGMENT_BEGIN_HEADER_SIZE;
    } else {
        pack_header(at, large->session, FRAGMENT, (uint32_t)size);
    }
    return HEADER_SIZE;
}

/* The frame with `size` bytes of a large message, straight to the socket. As lane_send_direct. */
static int send_frame(Lane *lane, const Large *large, int is_whole, Py_ssize_t position, Py_ssize_t size)
{
    unsigned char header[FRAGMENT_BEGIN_HEADER_SIZE];
    Py_ssize_t of_head = position < large->head_size ? large->head_size - position : 0;
    if (of_head > size || size < DIRECT_SIZE_MIN)
        return 0;
    Py_ssize_t at = position > large->head_size ? position - large->head_size : 0;
    struct iovec parts[4] = {
        [1] = {header, (size_t)pack_header_at(large, is_whole, position, size, header)},
        [2] = {(void *)(uintptr_t)(large->head + position), (size_t)of_head},
        [3] = {(void *)(uintptr_t)(large->body + at), (size_t)(size - of_head)},
    };
    if (of_head == 0)
        parts[2].iov_base = header; /* no byte of it */
    return lane_send_direct(lane, parts, 4);
}

/* Send or commit the frame of a large message that begins at `position` of it. Bytes of the message that it holds; 0: no
   room now; -1: exception set. Twin of LaneHot.write_chunk. */
static Py_ssize_t write_frame(Lane *lane, const Large *large, Py_ssize_t position)
{
    Py_ssize_t left = large->head_size + large->body_size - position;
    /* Of a message that was begun in fragments the rest is fragments, though the lane was joined meanwhile. */
    int is_whole = position == 0 && large->head_size + large->body_size <= lane->fragment_size;
    Py_ssize_t header = !is_whole && position == 0 ? FRAGMENT_BEGIN_HEADER_SIZE : HEADER_SIZE;
    Py_ssize_t most = lane->fragment_size;
    if (!is_whole && position == 0 && most > (Py_ssize_t)frames.body_max - 5) /* the frame holds a description as well */
        most = (Py_ssize_t)frames.body_max - 5;
    Py_ssize_t room = left < most ? left : most;
    Py_ssize_t least = room;
    if (!is_whole) {
        if (least > FRAGMENT_SIZE_MIN)
            least = FRAGMENT_SIZE_MIN;
        if (least < large->head_size - position) /* the description goes into the first frame as a whole */
            least = large->head_size - position;
    }
    int sent = send_frame(lane, large, is_whole, position, room);
    if (sent != 0)
        return sent < 0 ? -1 : room;
    if (room >= WAIT_SIZE_MIN && lane_is_joined(lane) && !ring_is_consumed(lane->writer))
        return ring_refuse_until_consumed(lane->writer);
    unsigned char *place;
    int claimed = lane_write_gathered(lane);
    if (claimed > 0)
        claimed = ring_claim(lane->writer, header + room, header + least, &place, &room);
    if (claimed <= 0)
        return claimed;
    Py_ssize_t size = room - header;
    pack_header_at(large, is_whole, position, size, place);
    copy_range(large, position, place + header, size);
    if (ring_commit(lane->writer, room, RECORD_DATA, lane->connection, lane->epoch) < 0)
        return -1;
    lane->bytes_sent += room;
    return size;
}

int lane_write_bytes(Lane *lane, unsigned int session, PyObject *value)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &data, &size) < 0)
        return -1;
    if (size > lane->whole_size_max || lane->parts_size_max == 0 || lane->is_over)
        return 0; /* parts_size_max: somebody stands in line for room */
    if (!lane->is_dirty && lane_mark_dirty(lane) < 0)
        return -1;
    Large large = {session, (uint32_t)size, frames.bytes_descriptor, NULL, data, 0, size};
    Py_ssize_t written = write_frame(lane, &large, 0);
    /* Who moves the bytes in this process is not rung for: the flush of this pass has it look. */
    if (written > 0 && (lane_is_joined(lane) || ring_publish(lane->writer) >= 0))
        return 1;
    if (!PyErr_Occurred())
        return 0;
    if (is_interruption())
        return -1;
    /* The ring failed, and refuses what is done with it next: the Python half, or the flush of this pass, finds out. */
    PyErr_Clear();
    return written > 0;
}

/* write_chunk(session, descriptor, length, head, body, position) -> bytes taken, published; 0 when there is no room. */
static PyObject *lane_write_chunk(Lane *lane, PyObject *args)
{
    Large large;
    Py_buffer head, body;
    Py_ssize_t position, taken = -1;
    unsigned int session, length;
    if (lane_check(lane) < 0 || !PyArg_ParseTuple(args, "IbIy*y*n", &session, &large.descriptor, &length, &head, &body,
                                                  &position))
        return NULL;
    large.session = session;
    large.length = length;
    large.head = head.buf;
    large.head_size = head.len;
    large.body = body.buf;
    large.body_size = body.len;
    if (position < 0 || position >= head.len + body.len || lane->fragment_size <= 0)
        PyErr_SetString(PyExc_ValueError, "a chunk begins inside its message");
    else
        taken = write_frame(lane, &large, position);
    PyBuffer_Release(&head);
    PyBuffer_Release(&body);
    if (taken < 0 || (taken > 0 && ring_publish(lane->writer) < 0))
        return NULL;
    return PyLong_FromSsize_t(taken);
}

/* take_gathered() -> bytes: hand everything over; afterwards nothing is gathered. */
static PyObject *lane_take_gathered(Lane *lane, PyObject *Py_UNUSED(ignored))
{
    PyObject *taken = PyBytes_FromStringAndSize(lane->gathered, lane->gathered_size);
    if (taken != NULL) {
        lane->gathered_size = 0;
        lane->parts_size = 0;
    }
    return taken;
}

/* Receiving. */

/* What a queue holds for a message: the body of BYTES, else (session, descriptor, length, body). A new reference. */
static PyObject *make_entry(uint32_t session, unsigned char descriptor, uint32_t length, const unsigned char *body,
                            uint32_t size)
{
    PyObject *content;
    if (frames.kind[descriptor] == KIND_WRITABLE)
        content = PyByteArray_FromStringAndSize((const char *)body, (Py_ssize_t)size);
    else
        content = PyBytes_FromStringAndSize((const char *)body, (Py_ssize_t)size);
    if (content == NULL || descriptor == frames.bytes_descriptor)
        return content;
    return Py_BuildValue("(IiIN)", session, (int)descriptor, length, content);
}

/* Hand an entry, whose reference is stolen, to a mailbox and wake whoever waits there. 0, or -1 with an exception set. */
static int deliver_entry(Lane *lane, Mailbox *mailbox, PyObject *entry, uint32_t length)
{
    int pushed = queue_push(mailbox->queue, entry);
    Py_DECREF(entry);
    if (pushed < 0)
        return -1;
    ((Worker *)lane->worker)->inbox_size += (long long)length + MESSAGE_OVERHEAD;
    lane->messages_received++;
    return mailbox->wait.waker != NULL ? wait_wake(&mailbox->wait) : 0;
}

/* The mailbox of a session that lives here, borrowed; NULL when there is none, or with an exception set. */
static PyObject *find_mailbox(Lane *lane, uint32_t session)
{
    PyObject *key = PyLong_FromUnsignedLong(session);
    if (key == NULL)
        return NULL;
    PyObject *found = PyDict_GetItemWithError(lane->mailboxes, key);
    Py_DECREF(key);
    return found != NULL && is_mailbox(found) ? found : NULL;
}

/* Deliver whole, surely legal frames of sessions that live here; *position ends in front of the first other one, or
   behind the one that passed the budget of the inbox. 0, or -1 with an exception set; `last` gets a new reference to the
   mailbox that was delivered to last.

   A waker runs Python, and with it any signal handler; so does what is freed. Whoever closes the party there unmaps
   `data`, and sets `is_over`: of a frame nothing is read once its body was copied. */
static int deliver(Lane *lane, const unsigned char *data, uint32_t size, uint32_t *position, PyObject **last)
{
    Worker *worker = (Worker *)lane->worker;
    uint32_t at = *position;
    int result = 0;
    while (!lane->is_over && size - at >= FIXED_HEADER_SIZE) {
        const unsigned char *frame = data + at;
        uint32_t session = load_u32(frame);
        unsigned char descriptor = load_u8(frame + 4);
        uint32_t length, header;
        switch (frames.kind[descriptor]) {
        case KIND_FIXED:
            header = FIXED_HEADER_SIZE;
            length = frames.fixed_size[descriptor];
            break;
        case KIND_PLAIN:
        case KIND_WRITABLE:
            if (size - at < HEADER_SIZE)
                goto out;
            header = HEADER_SIZE;
            length = load_u32(frame + FIXED_HEADER_SIZE);
            if (length > frames.body_max || length % frames.divisor[descriptor] ||
                length < frames.minimum[descriptor])
                goto out;
            break;
        default:
            goto out;
        }
        if (session == LINK_SESSION || length > size - at - header)
            goto out;
        PyObject *found = find_mailbox(lane, session);
        if (found == NULL) {
            if (PyErr_Occurred())
                goto failed;
            goto out;
        }
        PyObject *before = NULL;
        if (found != *last) {
            before = *last;
            *last = Py_NewRef(found);
        }
        Mailbox *mailbox = (Mailbox *)found;
        PyObject *entry = make_entry(session, descriptor, length, frame + header, length);
        Py_XDECREF(before);
        if (entry == NULL)
            goto failed;
        at += header + length;
        if (deliver_entry(lane, mailbox, entry, length) < 0)
            goto failed;
        if (worker->inbox_size > worker->inbox_size_max)
            goto out;
    }
    goto out;
failed:
    result = -1;
out:
    *position = at;
    return result;
}

static int check_inbox(Lane *lane, PyObject *mailbox)
{
    Worker *worker = (Worker *)lane->worker;
    if (mailbox == NULL || lane->is_over || worker->inbox_size <= worker->inbox_size_max)
        return 0;
    PyObject *done = PyObject_CallMethod(lane->worker, "overflow", "O", mailbox);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return 0;
}

/* One frame that needs care, or a piece of one: the Python half says how many bytes it took. */
static int take_carefully(Lane *lane, const RingRecord *record, uint32_t *position)
{
    PyObject *view = ring_payload_view(lane->receiver.reader, record, (Py_ssize_t)*position);
    if (view == NULL)
        return -1;
    PyObject *taken = PyObject_CallMethod((PyObject *)lane, "take_carefully", "O", view);
    Py_DECREF(view);
    if (taken == NULL)
        return -1;
    Py_ssize_t count = PyLong_AsSsize_t(taken);
    Py_DECREF(taken);
    if (count <= 0 || count > (Py_ssize_t)(record->size - *position)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "a careful step took no bytes, or more than there are");
        return -1;
    }
    *position += (uint32_t)count;
    return 0;
}

/* Keep the start of a body that the record cuts, in memory for all of it. 1: done, the record is used up; 0: the careful
   path has to; -1: exception set. The length was not checked before. */
static int begin_cut(Lane *lane, const unsigned char *frame, uint32_t size)
{
    if (size < HEADER_SIZE)
        return 0;
    uint32_t session = load_u32(frame), length = load_u32(frame + FIXED_HEADER_SIZE);
    unsigned char descriptor = load_u8(frame + 4);
    int kind = frames.kind[descriptor];
    uint32_t there = size - HEADER_SIZE;
    if ((kind != KIND_PLAIN && kind != KIND_WRITABLE) || session == LINK_SESSION || length > frames.body_max ||
        length % frames.divisor[descriptor] || length < frames.minimum[descriptor] || length <= there)
        return 0;
    if ((uint64_t)there * START_PART < length)
        return 0; /* who announces has to send as well, before it gets all the memory */
    lane->cut = kind == KIND_WRITABLE ? PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)length)
                                      : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (lane->cut == NULL)
        return -1;
    lane->cut_data = kind == KIND_WRITABLE ? PyByteArray_AsString(lane->cut) : PyBytes_AsString(lane->cut);
    memcpy(lane->cut_data, frame + HEADER_SIZE, there);
    lane->cut_session = session;
    lane->cut_descriptor = descriptor;
    lane->cut_length = length;
    lane->cut_filled = there;
    return 1;
}

/* go_on_with_body(session, descriptor, length, filler): the same for a body that the careful path has begun. */
static PyObject *lane_go_on_with_body(Lane *lane, PyObject *args)
{
    uint32_t session;
    unsigned char descriptor;
    Py_ssize_t length, size = 0, filled = 0;
    PyObject *filler;
    if (!PyArg_ParseTuple(args, "IbnO", &session, &descriptor, &length, &filler))
        return NULL;
    if (lane->cut != NULL || length > frames.body_max) {
        PyErr_SetString(PyExc_ValueError, "another body is open, or this one is too long");
        return NULL;
    }
    if (filler_lend(filler, &lane->cut, &lane->cut_data, &size, &filled) < 0)
        return NULL;
    if (size != length) {
        Py_CLEAR(lane->cut);
        PyErr_SetString(PyExc_ValueError, "a body's size is not that of its frame");
        return NULL;
    }
    lane->cut_session = session;
    lane->cut_descriptor = descriptor;
    lane->cut_length = (uint32_t)length;
    lane->cut_filled = (uint32_t)filled;
    Py_RETURN_NONE;
}

int lane_hand_over_cut(Lane *lane)
{
    PyObject *body = lane->cut;
    lane->cut = NULL;
    PyObject *mailbox = find_mailbox(lane, lane->cut_session);
    if (mailbox == NULL) {
        PyObject *done = PyErr_Occurred() ? NULL
                                          : PyObject_CallMethod((PyObject *)lane, "take_cut", "IiIO", lane->cut_session,
                                                                (int)lane->cut_descriptor, lane->cut_length, body);
        Py_DECREF(body);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    if (lane->cut_descriptor != frames.bytes_descriptor)
        body = Py_BuildValue("(IiIN)", lane->cut_session, (int)lane->cut_descriptor, lane->cut_length, body);
    if (body == NULL)
        return -1;
    Py_INCREF(mailbox);
    int result = deliver_entry(lane, (Mailbox *)mailbox, body, lane->cut_length);
    if (result == 0)
        result = check_inbox(lane, mailbox);
    Py_DECREF(mailbox);
    return result;
}

/* More of the body that was cut; when it is whole, hand it over. 0, or -1 with an exception set. */
static int go_on_with_cut(Lane *lane, const RingRecord *record, uint32_t *position)
{
    uint32_t there = record->size - *position, missing = lane->cut_length - lane->cut_filled;
    uint32_t size = there < missing ? there : missing;
    memcpy(lane->cut_data + lane->cut_filled, record->payload + *position, size);
    lane->cut_filled += size;
    *position += size;
    return lane->cut_filled < lane->cut_length ? 0 : lane_hand_over_cut(lane);
}

/* The header of a FRAGMENT, whose data `take_fragment` then takes. 1: passed; 0: the careful path has to. */
static int begin_fragment(Lane *lane, const unsigned char *frame, uint32_t size)
{
    if (size < HEADER_SIZE || frames.kind[load_u8(frame + 4)] != KIND_FRAGMENT)
        return 0;
    uint32_t session = load_u32(frame), length = load_u32(frame + FIXED_HEADER_SIZE);
    if (session == LINK_SESSION || length == 0 || length > frames.body_max)
        return 0;
    lane->fragment_session = session;
    lane->fragment_missing = length;
    return 1;
}

/* Data of an open FRAGMENT: to the Python half, as a view. 0, or -1 with an exception set. */
static int take_fragment(Lane *lane, const RingRecord *record, uint32_t *position)
{
    RingRecord piece = *record; /* its end, so that the view shows this frame's data alone */
    if (record->size - *position > lane->fragment_missing)
        piece.size = *position + lane->fragment_missing;
    PyObject *view = ring_payload_view(lane->receiver.reader, &piece, (Py_ssize_t)*position);
    if (view == NULL)
        return -1;
    lane->fragment_missing -= piece.size - *position;
    *position = piece.size;
    PyObject *done = PyObject_CallMethod((PyObject *)lane, "take_fragment", "IO", lane->fragment_session, view);
    Py_DECREF(view);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* What stands behind the last surely legal, whole frame. 0, or -1 with an exception set. */
static int take_other(Lane *lane, const RingRecord *record, uint32_t *position)
{
    if (lane->is_between_frames) {
        const unsigned char *frame = record->payload + *position;
        uint32_t size = record->size - *position;
        int begun = begin_cut(lane, frame, size);
        if (begun != 0) {
            *position = record->size;
            return begun < 0 ? -1 : 0;
        }
        if (begin_fragment(lane, frame, size)) {
            *position += HEADER_SIZE;
            return 0;
        }
    }
    return take_carefully(lane, record, position);
}

static int receive_data(Lane *lane, const RingRecord *record)
{
    uint32_t position = 0;
    int result = 0;
    while (result == 0 && position < record->size && !lane->is_over) {
        if (lane->cut != NULL) {
            result = go_on_with_cut(lane, record, &position);
            continue;
        }
        if (lane->fragment_missing > 0) {
            result = take_fragment(lane, record, &position);
            continue;
        }
        PyObject *last = NULL;
        if (lane->is_between_frames)
            result = deliver(lane, record->payload, record->size, &position, &last);
        if (result == 0)
            result = check_inbox(lane, last);
        Py_XDECREF(last);
        if (result == 0 && position < record->size && !lane->is_over)
            result = take_other(lane, record, &position);
    }
    if (result == 0)
        lane->bytes_received += record->size;
    return result;
}

static int receive_other(Lane *lane, const RingRecord *record)
{
    PyObject *view = ring_payload_view(lane->receiver.reader, record, 0);
    if (view == NULL)
        return -1;
    PyObject *done = PyObject_CallMethod((PyObject *)lane, "take_record", "IIIO", (unsigned int)record->kind,
                                         record->connection, record->epoch, view);
    Py_DECREF(view);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return 0;
}

/* What the ring refused is told to the Python half, which ends the lane, unless it is over already: then somebody who
   was called has closed the ring. 0, or -1 with an exception set. */
static int ring_failed(Lane *lane)
{
    if (is_interruption())
        return -1; /* is_urgent stays: the next receive finds that this one was interrupted */
    lane->receiver.is_urgent = 0;
    if (lane->is_over) {
        PyErr_Clear();
        return 0;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *done = PyObject_CallMethod((PyObject *)lane, "ring_failed", "O", error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return 0;
}

/* receive() -> the count of records taken in. */
PyObject *lane_receive(Lane *lane, PyObject *Py_UNUSED(ignored))
{
    if (lane_check(lane) < 0)
        return NULL;
    if (lane->receiver.is_urgent) {
        PyObject *done = PyObject_CallMethod((PyObject *)lane, "receive_was_interrupted", NULL);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    lane->receiver.is_urgent = 1;
    long count = 0;
    size_t bytes = 0;
    RingRecord record;
    int polled = 0;
    while (count < RECORDS_MAX && bytes < (size_t)lane->slice_size && (polled = ring_poll(lane->receiver.reader, &record)) > 0) {
        count++;
        bytes += record.size;
        if (lane->is_over)
            continue; /* what still comes is thrown away */
        int is_ours = record.kind == RECORD_DATA && record.connection == lane->connection && record.epoch == lane->epoch;
        if ((is_ours ? receive_data(lane, &record) : receive_other(lane, &record)) < 0)
            return NULL;
    }
    if (polled < 0) {
        count += !lane->is_over;
        return ring_failed(lane) < 0 ? NULL : PyLong_FromLong(count);
    }
    if (count > 0 && ring_release_all(lane->receiver.reader) < 0 && ring_failed(lane) < 0)
        return NULL;
    lane->receiver.is_urgent = 0;
    return PyLong_FromLong(count);
}

/* The type. */

static int lane_init(Lane *lane, PyObject *args, PyObject *kwargs)
{
    PyObject *worker, *writer, *reader;
    unsigned int connection, epoch;
    static char *names[] = {"worker", "writer", "reader", "connection", "epoch", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOII", names, &worker, &writer, &reader, &connection, &epoch))
        return -1;
    if (!is_worker(worker) || !ring_is_writer(writer) || !ring_is_reader(reader)) {
        PyErr_SetString(PyExc_TypeError, "a compiled lane needs a compiled worker and compiled rings");
        return -1;
    }
    if (lane->worker != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a lane is made once");
        return -1;
    }
    PyObject *record_size_max = PyObject_GetAttrString(writer, "record_size_max");
    if (record_size_max == NULL)
        return -1;
    lane->record_size_max = PyLong_AsSsize_t(record_size_max);
    Py_DECREF(record_size_max);
    if (lane->record_size_max <= 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the writer's ring is not there");
        return -1;
    }
    lane->mailboxes = PyDict_New();
    if (lane->mailboxes == NULL)
        return -1;
    lane->worker = Py_NewRef(worker);
    lane->writer = Py_NewRef(writer);
    lane->receiver.reader = Py_NewRef(reader);
    lane->connection = connection;
    lane->epoch = epoch;
    lane->is_between_frames = 1;
    lane->slice_size = SLICE_SIZE;
    return 0;
}

static int lane_traverse(Lane *lane, visitproc visit, void *arg)
{
    Py_VISIT(type_of(lane));
    Py_VISIT(lane->worker);
    Py_VISIT(lane->writer);
    Py_VISIT(lane->receiver.reader);
    Py_VISIT(lane->mailboxes);
    Py_VISIT(lane->pump);
    return 0;
}

static int lane_clear(Lane *lane)
{
    Py_CLEAR(lane->worker);
    Py_CLEAR(lane->writer);
    Py_CLEAR(lane->receiver.reader);
    Py_CLEAR(lane->mailboxes);
    Py_CLEAR(lane->pump);
    Py_CLEAR(lane->cut);
    return 0;
}

static void lane_dealloc(Lane *lane)
{
    PyTypeObject *type = type_of(lane);
    PyObject_GC_UnTrack(lane);
    lane_clear(lane);
    PyMem_Free(lane->gathered);
    PyObject_GC_Del(lane);
    Py_DECREF(type);
}

static PyMemberDef lane_members[] = {
    {"writer", T_OBJECT, offsetof(Lane, writer), READONLY, NULL},
    {"connection", T_UINT, offsetof(Lane, connection), READONLY, NULL},
    {"epoch", T_UINT, offsetof(Lane, epoch), READONLY, NULL},
    {"mailboxes", T_OBJECT, offsetof(Lane, mailboxes), READONLY, NULL},
    {"pump", T_OBJECT, offsetof(Lane, pump), 0, NULL},
    {"parts_size", T_LONGLONG, offsetof(Lane, parts_size), 0, NULL},
    {"parts_size_max", T_LONGLONG, offsetof(Lane, parts_size_max), 0, NULL},
    {"small_size_max", T_LONGLONG, offsetof(Lane, small_size_max), 0, NULL},
    {"whole_size_max", T_LONGLONG, offsetof(Lane, whole_size_max), 0, NULL},
    {"fragment_size", T_PYSSIZET, offsetof(Lane, fragment_size), 0, NULL},
    {"slice_size", T_PYSSIZET, offsetof(Lane, slice_size), 0, NULL},
    {"fragment_session", T_UINT, offsetof(Lane, fragment_session), 0, NULL},
    {"fragment_missing", T_UINT, offsetof(Lane, fragment_missing), 0, NULL},
    {"messages_received", T_LONGLONG, offsetof(Lane, messages_received), 0, NULL},
    {"bytes_received", T_LONGLONG, offsetof(Lane, bytes_received), 0, NULL},
    {"bytes_sent", T_LONGLONG, offsetof(Lane, bytes_sent), 0, NULL},
    {"is_dirty", T_BOOL, offsetof(Lane, is_dirty), 0, NULL},
    {"is_over", T_BOOL, offsetof(Lane, is_over), 0, NULL},
    {"is_between_frames", T_BOOL, offsetof(Lane, is_between_frames), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef lane_methods[] = {
    {"gather", (PyCFunction)lane_gather, METH_O, PyDoc_STR("Append buffers to what is gathered.")},
    {"write_gathered", (PyCFunction)write_gathered, METH_NOARGS,
     PyDoc_STR("Commit what is gathered as one record; False when there is no room now.")},
    {"write_chunk", (PyCFunction)lane_write_chunk, METH_VARARGS,
     PyDoc_STR("Write and publish the next frame of a large message. Returns the bytes taken, 0 when there is no room.")},
    {"send_direct", (PyCFunction)lane_send_gathered, METH_NOARGS,
     PyDoc_STR("Send what is gathered straight to the socket; whether nothing is left to send.")},
    {"take_gathered", (PyCFunction)lane_take_gathered, METH_NOARGS, PyDoc_STR("Hand over what is gathered.")},
    {"go_on_with_body", (PyCFunction)lane_go_on_with_body, METH_VARARGS,
     PyDoc_STR("Take the rest of a body that `take_carefully` has begun: session, descriptor, length, filler.")},
    {"receive", (PyCFunction)lane_receive, METH_NOARGS,
     PyDoc_STR("Deliver what the I/O process has published. Returns the count of records.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lane_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of workers.lane.Lane.")},
    {Py_tp_init, lane_init},
    {Py_tp_members, lane_members},
    {Py_tp_methods, lane_methods},
    {Py_tp_traverse, lane_traverse},
    {Py_tp_clear, lane_clear},
    {Py_tp_dealloc, lane_dealloc},
    {0, NULL},
};

static PyType_Spec lane_spec = {
    .name = "partywire._core.LaneHot",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = lane_slots,
};

static PyMethodDef functions[] = {
    {"set_frame_kinds", set_frame_kinds, METH_VARARGS,
     PyDoc_STR("Say which descriptors need no second look: tables of 256 bytes made from FRAME_TABLE.")},
    {NULL, NULL, 0, NULL},
};

int add_lanes(PyObject *module)
{
    memset(frames.divisor, 1, sizeof frames.divisor); /* no frame is hot until the tables are set */
    return (lane_type = add_type(module, "LaneHot", &lane_spec, receiver_type)) == NULL ||
                   PyModule_AddFunctions(module, functions) < 0
               ? -1
               : 0;
}
