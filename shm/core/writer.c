/* WriterCore: the producer's end of a ring, as far as it is hot. shm/pure.py is its twin and its specification.

   Everything that refuses, fails or waits is a method of the Python class built on it, called by name and only to raise
   or to count. A call into Python may do anything, even close this ring, so `mapping.words` is looked at again after. */

#include "layout.h"

#include <structmember.h>

typedef struct {
    PyObject_HEAD
    Mapping mapping;
    Ordering ordering;
    PyObject *view; /* the data as a writable memoryview, of which claims are slices */
    PyObject *bell; /* the consumer's, or None */
    uint64_t mask;
    uint64_t record_size_max;
    uint64_t tail;           /* published */
    uint64_t pending;        /* published + committed */
    uint64_t head_seen;      /* may be stale, then it shows too little room */
    uint64_t sequence;       /* of the next record */
    uint64_t claim_position; /* of the open claim's header, pad passed */
    long long claim_size;    /* of the open claim; -1 once the ring is failed or closed */
    long long size_gate;     /* record_size_max while a record may be written, else -1 */
    uint64_t bells;
} WriterCore;

static PyTypeObject *writer_type;

int ring_is_writer(PyObject *object)
{
    return PyObject_TypeCheck(object, writer_type);
}

/* Making and ending. */

static void die(WriterCore *self)
{
    self->size_gate = self->claim_size = -1;
    self->pending = self->tail; /* nothing more is published */
}

static int is_dead(const WriterCore *self)
{
    return self->size_gate < 0 && self->claim_size < 0;
}

static int refuse_dead(WriterCore *self)
{
    return refuse((PyObject *)self, "_refuse_dead", "()");
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args;
    (void)keywords;
    WriterCore *self = (WriterCore *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL)
        die(self);
    return (PyObject *)self;
}

static int writer_init(PyObject *object, PyObject *args, PyObject *keywords)
{
    WriterCore *self = (WriterCore *)object;
    PyObject *segment, *fence, *bell;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "a writer's core takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOO:WriterCore", &segment, &fence, &bell))
        return -1;
    if (mapping_hold(&self->mapping, segment) < 0)
        return -1;
    if (ordering_init(&self->ordering, fence) < 0 || (self->view = PyObject_GetAttrString(segment, "data")) == NULL) {
        mapping_drop(&self->mapping);
        return -1;
    }
    Py_INCREF(bell);
    self->bell = bell;
    uint64_t *words = self->mapping.words;
    self->mask = self->mapping.capacity - 1;
    self->record_size_max = self->mapping.capacity / 2 - RECORD_HEADER_SIZE;
    self->tail = self->pending = load_word(words, WORD_TAIL);
    self->head_seen = load_word(words, WORD_HEAD);
    self->sequence = load_word(words, WORD_RECORDS_PUBLISHED);
    /* With positions that cannot be, the writer stays dead: its Python class says why and raises. */
    if (self->tail - self->head_seen <= self->mapping.capacity && ((self->tail | self->head_seen) % ALIGNMENT) == 0) {
        self->claim_size = 0;
        self->size_gate = (long long)self->record_size_max;
    }
    return 0;
}

static int writer_traverse(PyObject *object, visitproc visit, void *arg)
{
    WriterCore *self = (WriterCore *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->ordering.waker);
    Py_VISIT(self->ordering.observe);
    Py_VISIT(self->view);
    Py_VISIT(self->bell);
    return 0;
}

static int writer_clear(PyObject *object)
{
    WriterCore *self = (WriterCore *)object;
    die(self);
    mapping_drop(&self->mapping);
    Py_CLEAR(self->ordering.waker);
    Py_CLEAR(self->ordering.observe);
    Py_CLEAR(self->view);
    Py_CLEAR(self->bell);
    return 0;
}

static void writer_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    writer_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Room. */

/* Refresh the head. 0, or -1 with an exception set.
   Acquire, with RingReader.release: whoever sees this head may overwrite every byte before it. */
static int load_head(WriterCore *self)
{
    uint64_t head = load_word(self->mapping.words, WORD_HEAD);
    if (ordering_observe(&self->ordering) < 0)
        return -1;
    if (self->mapping.words == NULL)
        return refuse_dead(self);
    if (head - self->head_seen > self->tail - self->head_seen || head % ALIGNMENT != 0)
        return refuse((PyObject *)self, "_refuse_head", "(K)", (unsigned long long)head);
    self->head_seen = head;
    return 0;
}

/* Bytes that are free as far as the last seen head tells; at most the capacity. */
static uint64_t free_bytes(const WriterCore *self)
{
    return self->mapping.capacity - (self->pending - self->head_seen);
}

static void write_header(WriterCore *self, uint64_t position, uint64_t size, uint16_t kind, uint32_t connection,
                         uint32_t epoch)
{
    RecordHeader header = {
        .size = (uint32_t)size,
        .kind = kind,
        .connection = connection,
        .epoch = epoch,
        .sequence = self->sequence,
    };
    memcpy(self->mapping.data + (position & self->mask), &header, sizeof header);
}

/* Fill the rest of the ring with a record that the consumer skips. It carries a sequence but takes none. */
static void write_pad(WriterCore *self, uint64_t position, uint64_t room)
{
    write_header(self, position, room - RECORD_HEADER_SIZE, KIND_PAD, 0, 0);
}

/* There is no room for `total` ring bytes. 0, or -1 with an exception set. */
static int report_full(WriterCore *self, uint64_t total)
{
    return call_method((PyObject *)self, "_refuse", "(K)", (unsigned long long)total);
}

static int refuse_size(WriterCore *self, Py_ssize_t size_min, Py_ssize_t size_max)
{
    return refuse((PyObject *)self, "_refuse_size", "(nn)", size_min, size_max);
}

/* The position of a record of exactly `size` bytes, its pad written. 1; 0: no room; -1: exception set. */
static int make_room(WriterCore *self, Py_ssize_t size, uint64_t *position)
{
    if (size < 0 || size > self->size_gate)
        return refuse_size(self, size, size);
    uint64_t need = ring_bytes((uint64_t)size);
    uint64_t room = self->mapping.capacity - (self->pending & self->mask);
    uint64_t total = need <= room ? need : room + need;
    if (total > free_bytes(self)) {
        if (load_head(self) < 0)
            return -1;
        if (total > free_bytes(self))
            return report_full(self, total);
    }
    *position = self->pending;
    if (need > room) {
        write_pad(self, self->pending, room);
        *position += room;
    }
    return 1;
}

/* Writing. Nothing is visible to the consumer before ring_publish. */

static void commit_record(WriterCore *self, uint64_t position, uint64_t size, uint16_t kind, uint32_t connection,
                          uint32_t epoch)
{
    write_header(self, position, size, kind, connection, epoch);
    self->sequence += 1;
    self->pending = position + ring_bytes(size);
}

int ring_write(PyObject *writer, const void *data, Py_ssize_t size, uint16_t kind, uint32_t connection, uint32_t epoch)
{
    WriterCore *self = (WriterCore *)writer;
    uint64_t position;
    int status = make_room(self, size, &position);
    if (status <= 0)
        return status;
    if (size > 0)
        memcpy(self->mapping.data + (position & self->mask) + RECORD_HEADER_SIZE, data, (size_t)size);
    commit_record(self, position, (uint64_t)size, kind, connection, epoch);
    return 1;
}

/* Where a claim from `size_min` to `wanted` bytes may lie now: its position and size. The room before the end of the
   ring is preferred to more room at its start, so none is wasted on pads. 1; 0: no room; -1: exception set. */
static int find_room(WriterCore *self, uint64_t wanted, uint64_t size_min, uint64_t *position, uint64_t *size)
{
    uint64_t room = self->mapping.capacity - (self->pending & self->mask);
    if (free_bytes(self) < ring_bytes(wanted) && load_head(self) < 0)
        return -1;
    uint64_t here = free_bytes(self) < room ? free_bytes(self) : room;
    if (here >= RECORD_HEADER_SIZE + size_min) {
        *position = self->pending;
        *size = here - RECORD_HEADER_SIZE;
        return 1;
    }
    /* The start of the ring, behind a pad. The head is loaded anew: it was fresh enough for `wanted` bytes only. */
    if (load_head(self) < 0)
        return -1;
    if (free_bytes(self) < room + RECORD_HEADER_SIZE + size_min) {
        uint64_t need = ring_bytes(size_min);
        return report_full(self, need <= room ? need : room + need);
    }
    *size = free_bytes(self) - room - RECORD_HEADER_SIZE;
    *position = self->pending + room;
    write_pad(self, self->pending, room);
    return 1;
}

int ring_claim(PyObject *writer, Py_ssize_t size_max, Py_ssize_t size_min, unsigned char **place, Py_ssize_t *size)
{
    WriterCore *self = (WriterCore *)writer;
    uint64_t position = 0, found = 0;
    if (size_min < 0 || size_max < size_min || size_min > self->size_gate)
        return refuse_size(self, size_min, size_max);
    uint64_t wanted = (uint64_t)size_max < self->record_size_max ? (uint64_t)size_max : self->record_size_max;
    int status = find_room(self, wanted, (uint64_t)size_min, &position, &found);
    if (status <= 0)
        return status;
    if (found > wanted)
        found = wanted;
    self->claim_position = position;
    self->claim_size = (long long)found;
    self->size_gate = -1;
    *place = self->mapping.data + (position & self->mask) + RECORD_HEADER_SIZE;
    *size = (Py_ssize_t)found;
    return 1;
}

int ring_commit(PyObject *writer, Py_ssize_t size, uint16_t kind, uint32_t connection, uint32_t epoch)
{
    WriterCore *self = (WriterCore *)writer;
    if (self->size_gate >= 0 || size < 0 || size > self->claim_size)
        return refuse(writer, "_refuse_commit", "(n)", size);
    commit_record(self, self->claim_position, (uint64_t)size, kind, connection, epoch);
    self->size_gate = (long long)self->record_size_max;
    return 0;
}

int ring_abort(PyObject *writer)
{
    WriterCore *self = (WriterCore *)writer;
    if (self->size_gate >= 0 || self->claim_size < 0)
        return refuse(writer, "_refuse_commit", "(i)", 0);
    self->size_gate = (long long)self->record_size_max;
    return 0;
}

int ring_refuse_until_consumed(PyObject *writer)
{
    WriterCore *self = (WriterCore *)writer;
    return call_method(writer, "_refuse", "(K)", (unsigned long long)(self->mask + 1)) < 0 ? -1 : 0;
}

int ring_is_consumed(PyObject *writer)
{
    WriterCore *self = (WriterCore *)writer;
    return self->size_gate >= 0 && self->pending == self->tail &&
           load_word(self->mapping.words, WORD_HEAD) == self->tail;
}

int ring_publish(PyObject *writer)
{
    WriterCore *self = (WriterCore *)writer;
    if (self->pending == self->tail)
        return is_dead(self) ? refuse_dead(self) : 0;
    /* Release: whoever sees this tail sees every byte of every record before it. */
    store_word(self->mapping.words, WORD_TAIL, self->pending);
    self->tail = self->pending;
    store_figure(self->mapping.words, WORD_RECORDS_PUBLISHED, self->sequence);
    if (ordering_wake(&self->ordering) < 0)
        return -1;
    int rung = bell_ring_if_asleep(self->bell);
    if (rung > 0 && self->mapping.words != NULL)
        store_figure(self->mapping.words, WORD_PRODUCER_BELLS, ++self->bells);
    return rung;
}

/* Methods. */

/* Copy one part to `place`, of which `room` bytes are left. Its size, or -1 with an exception set. */
static Py_ssize_t copy_part(WriterCore *self, PyObject *part, uint64_t offset, uint64_t room)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(part, &buffer, PyBUF_SIMPLE) < 0)
        return -1;
    Py_ssize_t size = buffer.len;
    if (self->mapping.words == NULL) {
        PyBuffer_Release(&buffer);
        return refuse_dead(self); /* taking the buffer ran somebody's Python, which closed the ring */
    }
    if ((uint64_t)size <= room && size > 0)
        memcpy(self->mapping.data + offset, buffer.buf, (size_t)size);
    PyBuffer_Release(&buffer);
    return size;
}

/* Copy all parts, which must fill exactly `size` bytes. 0, or -1 with an exception set. */
static int copy_parts(WriterCore *self, PyObject *parts, uint64_t offset, uint64_t size)
{
    uint64_t left = size;
    PyObject *sequence = PySequence_Tuple(parts);
    if (sequence == NULL)
        return -1;
    Py_ssize_t count = PyTuple_Size(sequence);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t copied = copy_part(self, PyTuple_GetItem(sequence, i), offset + (size - left), left);
        if (copied < 0) {
            Py_DECREF(sequence);
            return -1;
        }
        if ((uint64_t)copied > left) {
            left = 1; /* too much is as wrong as too little */
            break;
        }
        left -= (uint64_t)copied;
    }
    Py_DECREF(sequence);
    if (left == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "the parts of a record do not add up to the %llu bytes announced",
                 (unsigned long long)size);
    return -1;
}

/* The three numbers of a record's header, from the arguments `kind`, `connection` and `link_epoch`. */
static int as_header(PyObject *const *values, uint64_t *kind, uint64_t *connection, uint64_t *epoch)
{
    *connection = *epoch = 0;
    if (as_unsigned(values[0], "kind", UINT16_MAX, kind) < 0)
        return -1;
    if (values[1] != NULL && as_unsigned(values[1], "connection", UINT32_MAX, connection) < 0)
        return -1;
    return values[2] == NULL ? 0 : as_unsigned(values[2], "link_epoch", UINT32_MAX, epoch);
}

/* PyLong_AsSsize_t, where an integer that is too large is a size that no ring has and not an error of its own. */
static int as_size(PyObject *value, Py_ssize_t *size)
{
    *size = PyLong_AsSsize_t(value);
    if (*size != -1 || !PyErr_Occurred())
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    PyObject *zero = PyLong_FromLong(0);
    int is_negative = zero == NULL ? -1 : PyObject_RichCompareBool(value, zero, Py_LT);
    Py_XDECREF(zero);
    if (is_negative < 0)
        return -1;
    *size = is_negative ? PY_SSIZE_T_MIN : PY_SSIZE_T_MAX;
    return 0;
}

static PyObject *writer_try_write(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"parts", "size", "kind", "connection", "link_epoch"};
    WriterCore *self = (WriterCore *)object;
    PyObject *values[5] = {NULL};
    Py_ssize_t size;
    uint64_t kind, connection, epoch, position;
    if (bind_arguments(args, count, keywords, names, 5, 3, values) < 0 || as_size(values[1], &size) < 0 ||
        as_header(values + 2, &kind, &connection, &epoch) < 0)
        return NULL;
    int status = make_room(self, size, &position);
    if (status < 0)
        return NULL;
    if (status == 0)
        Py_RETURN_FALSE;
    uint64_t before = self->pending;
    if (copy_parts(self, values[0], (position & self->mask) + RECORD_HEADER_SIZE, (uint64_t)size) < 0)
        return NULL;
    if (self->pending != before || self->size_gate < 0) {
        PyErr_SetString(PyExc_RuntimeError, "a part of a record used the ring while it was copied");
        return NULL;
    }
    commit_record(self, position, (uint64_t)size, (uint16_t)kind, (uint32_t)connection, (uint32_t)epoch);
    Py_RETURN_TRUE;
}

static PyObject *writer_try_claim(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"size_max", "size_min"};
    WriterCore *self = (WriterCore *)object;
    PyObject *values[2] = {NULL};
    Py_ssize_t size_max, size_min = 1, size;
    unsigned char *place;
    if (bind_arguments(args, count, keywords, names, 2, 1, values) < 0 || as_size(values[0], &size_max) < 0 ||
        (values[1] != NULL && as_size(values[1], &size_min) < 0))
        return NULL;
    int status = ring_claim(object, size_max, size_min, &place, &size);
    if (status < 0)
        return NULL;
    if (status == 0)
        Py_RETURN_NONE;
    PyObject *claim = slice_view(self->view, (uint64_t)(place - self->mapping.data), (uint64_t)size);
    if (claim == NULL)
        self->size_gate = (long long)self->record_size_max;
    return claim;
}

static PyObject *writer_commit(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"size", "kind", "connection", "link_epoch"};
    PyObject *values[4] = {NULL};
    Py_ssize_t size;
    uint64_t kind, connection, epoch;
    if (bind_arguments(args, count, keywords, names, 4, 2, values) < 0 || as_size(values[0], &size) < 0 ||
        as_header(values + 1, &kind, &connection, &epoch) < 0 ||
        ring_commit(object, size, (uint16_t)kind, (uint32_t)connection, (uint32_t)epoch) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *writer_abort(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    if (ring_abort(object) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *writer_publish(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    int rung = ring_publish(object);
    return rung < 0 ? NULL : PyBool_FromLong(rung);
}

static PyObject *writer_load_head(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    WriterCore *self = (WriterCore *)object;
    if (self->mapping.words == NULL ? refuse_dead(self) < 0 : load_head(self) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(self->head_seen);
}

static PyObject *writer_die(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    die((WriterCore *)object);
    Py_RETURN_NONE;
}

static PyObject *writer_detach(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    WriterCore *self = (WriterCore *)object;
    die(self);
    Py_CLEAR(self->view);
    mapping_drop(&self->mapping);
    Py_RETURN_NONE;
}

#define HOT(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef writer_methods[] = {
    {"try_write", HOT(writer_try_write), PyDoc_STR("See shm/pure.py.")},
    {"try_claim", HOT(writer_try_claim), PyDoc_STR("See shm/pure.py.")},
    {"commit", HOT(writer_commit), PyDoc_STR("See shm/pure.py.")},
    {"abort", writer_abort, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"publish", writer_publish, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"_load_head", writer_load_head, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"_die", writer_die, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"_detach", writer_detach, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef writer_members[] = {
    {"_tail", T_ULONGLONG, offsetof(WriterCore, tail), READONLY, NULL},
    {"_pending", T_ULONGLONG, offsetof(WriterCore, pending), READONLY, NULL},
    {"_head_seen", T_ULONGLONG, offsetof(WriterCore, head_seen), READONLY, NULL},
    {"_sequence", T_ULONGLONG, offsetof(WriterCore, sequence), READONLY, NULL},
    {"_capacity", T_ULONGLONG, offsetof(WriterCore, mapping.capacity), READONLY, NULL},
    {"_claim_size", T_LONGLONG, offsetof(WriterCore, claim_size), READONLY, NULL},
    {"_size_gate", T_LONGLONG, offsetof(WriterCore, size_gate), READONLY, NULL},
    {"record_size_max", T_ULONGLONG, offsetof(WriterCore, record_size_max), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The hot half of RingWriter.")},
    {Py_tp_new, writer_new},
    {Py_tp_init, writer_init},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_traverse, writer_traverse},
    {Py_tp_clear, writer_clear},
    {Py_tp_methods, writer_methods},
    {Py_tp_members, writer_members},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "partywire._core.WriterCore",
    .basicsize = sizeof(WriterCore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = writer_slots,
};

int add_writer(PyObject *module)
{
    writer_type = (PyTypeObject *)PyType_FromSpec(&writer_spec);
    return writer_type == NULL ? -1 : PyModule_AddType(module, writer_type);
}
