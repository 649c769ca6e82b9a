/* ReaderCore: the consumer's end of a ring, as far as it is hot. shm/pure.py is its twin and its specification.

   Each header is copied once, checked field by field, and never read again. What is wrong with one is said by the Python
   class built on this one, which is called by name, only to raise. */

#include "layout.h"

#include <structmember.h>

/* Where each polled, unreleased record ends: a queue in one block that grows to the most there ever were. A record has
   at least 32 bytes, so a ring of the largest size holds 2^25 of them. */
typedef struct {
    uint64_t *ends;
    size_t first;
    size_t count;
    size_t room;
} EndQueue;

typedef struct {
    PyObject_HEAD
    Mapping mapping;
    Ordering ordering;
    PyObject *view; /* the data as a read-only memoryview, of which payloads are slices */
    PyObject *bell; /* the producer's, or None */
    uint64_t mask;
    uint64_t tail_seen; /* checked; may be stale, then it shows too few records */
    uint64_t head;      /* published */
    uint64_t position;  /* of the next record to poll */
    uint64_t sequence;  /* of that record */
    uint64_t released;
    uint64_t space_rung; /* the request that was answered last */
    uint64_t depth_max;
    uint64_t bells;
    EndQueue polled;
    char is_dead;
} ReaderCore;

static PyTypeObject *reader_type;
static PyObject *record_type; /* shm.record.Record, once there is a reader */
static newfunc make_tuple;

int ring_is_reader(PyObject *object)
{
    return PyObject_TypeCheck(object, reader_type);
}

/* The queue of ends. */

enum { ENDS_MIN = 256 };

static int ends_append(EndQueue *queue, uint64_t end)
{
    if (queue->first + queue->count == queue->room) {
        if (queue->first > queue->room / 2) {
            memmove(queue->ends, queue->ends + queue->first, queue->count * sizeof *queue->ends);
            queue->first = 0;
        } else {
            size_t room = queue->room == 0 ? ENDS_MIN : 2 * queue->room;
            uint64_t *ends = PyMem_Realloc(queue->ends, room * sizeof *ends);
            if (ends == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            queue->ends = ends;
            queue->room = room;
        }
    }
    queue->ends[queue->first + queue->count] = end;
    queue->count += 1;
    return 0;
}

static void ends_drop(EndQueue *queue, size_t count)
{
    queue->count -= count;
    queue->first = queue->count == 0 ? 0 : queue->first + count;
}

/* Making and ending. */

static int refuse_dead(ReaderCore *self)
{
    return refuse((PyObject *)self, "_refuse_dead", "()");
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args;
    (void)keywords;
    ReaderCore *self = (ReaderCore *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL)
        self->is_dead = 1;
    return (PyObject *)self;
}

/* Not at import, since partywire.shm itself imports this module. 0, or -1 with an exception set. */
static int find_record_type(void)
{
    if (record_type != NULL)
        return 0;
    PyObject *module = PyImport_ImportModule("partywire.shm.record");
    PyObject *found = module == NULL ? NULL : PyObject_GetAttrString(module, "Record");
    Py_XDECREF(module);
    if (found == NULL)
        return -1;
    if (!PyType_Check(found) || !PyType_IsSubtype((PyTypeObject *)found, &PyTuple_Type)) {
        Py_DECREF(found);
        PyErr_SetString(PyExc_TypeError, "partywire.shm.record.Record is no tuple");
        return -1;
    }
    record_type = found;
    return 0;
}

static PyObject *read_only_data(PyObject *segment)
{
    PyObject *data = PyObject_GetAttrString(segment, "data");
    if (data == NULL)
        return NULL;
    PyObject *view = PyObject_CallMethod(data, "toreadonly", NULL);
    Py_DECREF(data);
    return view;
}

static int reader_init(PyObject *object, PyObject *args, PyObject *keywords)
{
    ReaderCore *self = (ReaderCore *)object;
    PyObject *segment, *fence, *bell;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "a reader's core takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOO:ReaderCore", &segment, &fence, &bell))
        return -1;
    if (find_record_type() < 0 || mapping_hold(&self->mapping, segment) < 0)
        return -1;
    if (ordering_init(&self->ordering, fence) < 0 || (self->view = read_only_data(segment)) == NULL) {
        mapping_drop(&self->mapping);
        return -1;
    }
    Py_INCREF(bell);
    self->bell = bell;
    self->mask = self->mapping.capacity - 1;
    self->head = load_word(self->mapping.words, WORD_HEAD);
    self->tail_seen = self->position = self->head;
    self->sequence = self->released = load_word(self->mapping.words, WORD_RECORDS_RELEASED);
    /* With a head that cannot be, the reader stays dead: its Python class says why and raises. */
    self->is_dead = self->head % ALIGNMENT != 0;
    return 0;
}

static int reader_traverse(PyObject *object, visitproc visit, void *arg)
{
    ReaderCore *self = (ReaderCore *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->ordering.waker);
    Py_VISIT(self->ordering.observe);
    Py_VISIT(self->view);
    Py_VISIT(self->bell);
    return 0;
}

static int reader_clear(PyObject *object)
{
    ReaderCore *self = (ReaderCore *)object;
    self->is_dead = 1;
    mapping_drop(&self->mapping);
    Py_CLEAR(self->ordering.waker);
    Py_CLEAR(self->ordering.observe);
    Py_CLEAR(self->view);
    Py_CLEAR(self->bell);
    return 0;
}

static void reader_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    reader_clear(object);
    PyMem_Free(((ReaderCore *)object)->polled.ends);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Reading. */

/* Refresh the tail. 0, or -1 with an exception set.
   Acquire: whoever sees this tail sees every byte of every record before it. */
static int load_tail(ReaderCore *self)
{
    uint64_t tail = load_word(self->mapping.words, WORD_TAIL);
    if (tail == self->position) {
        self->tail_seen = tail;
        return 0;
    }
    /* head <= position < tail <= head + capacity */
    uint64_t depth = tail - self->head;
    if (depth > self->mapping.capacity || depth < self->position - self->head || tail % ALIGNMENT != 0)
        return refuse((PyObject *)self, "_refuse_tail", "(K)", (unsigned long long)tail);
    if (ordering_observe(&self->ordering) < 0)
        return -1;
    if (self->is_dead)
        return refuse_dead(self);
    self->tail_seen = tail;
    if (depth > self->depth_max) {
        self->depth_max = depth;
        store_figure(self->mapping.words, WORD_DEPTH_MAX, depth);
    }
    return 0;
}

static int refuse_header(ReaderCore *self, const RecordHeader *header)
{
    return refuse((PyObject *)self, "_refuse_header", "(KKK(IHHKK))", (unsigned long long)self->position,
                  (unsigned long long)self->tail_seen, (unsigned long long)self->sequence,
                  (unsigned int)header->size, header->kind, header->flags, (unsigned long long)header->sequence,
                  (unsigned long long)header->reserved);
}

/* Take the next record before `tail_seen`, past pads. 1: `record` is filled; 0: none; -1: exception set. */
static int next_record(ReaderCore *self, RingRecord *record)
{
    while (self->position != self->tail_seen) {
        uint64_t index = self->position & self->mask;
        uint64_t room = self->mapping.capacity - index;
        RecordHeader header = load_header(self->mapping.data + index);
        uint64_t need = ring_bytes(header.size);
        int is_pad = header.kind == KIND_PAD;
        if (need > room || need > self->tail_seen - self->position || header.kind == 0 || (is_pad && need != room) ||
            header.flags != 0 || header.sequence != self->sequence || header.reserved != 0)
            return refuse_header(self, &header);
        if (is_pad) {
            self->position += need;
            continue;
        }
        if (ends_append(&self->polled, self->position + need) < 0)
            return -1;
        self->position += need;
        self->sequence += 1;
        record->payload = self->mapping.data + index + RECORD_HEADER_SIZE;
        record->size = header.size;
        record->kind = header.kind;
        record->connection = header.connection;
        record->epoch = header.epoch;
        return 1;
    }
    return 0;
}

int ring_poll(PyObject *reader, RingRecord *record)
{
    ReaderCore *self = (ReaderCore *)reader;
    if (self->is_dead)
        return refuse_dead(self);
    if (self->position == self->tail_seen && load_tail(self) < 0)
        return -1;
    return next_record(self, record);
}

int ring_is_empty(PyObject *reader)
{
    ReaderCore *self = (ReaderCore *)reader;
    if (self->is_dead)
        return refuse_dead(self);
    /* Acquire: whoever sees this tail sees every byte of every record before it. Here only whether it moved counts. */
    return load_word(self->mapping.words, WORD_TAIL) == self->position;
}

PyObject *ring_payload_view(PyObject *reader, const RingRecord *record, Py_ssize_t offset)
{
    ReaderCore *self = (ReaderCore *)reader;
    if (self->is_dead) {
        refuse_dead(self);
        return NULL;
    }
    if (offset < 0 || (uint64_t)offset > record->size) {
        PyErr_Format(PyExc_ValueError, "a payload of %u bytes has no byte %zd", (unsigned int)record->size, offset);
        return NULL;
    }
    uint64_t start = (uint64_t)(record->payload - self->mapping.data) + (uint64_t)offset;
    return slice_view(self->view, start, record->size - (uint64_t)offset);
}

/* Giving back. */

/* Release: whoever sees this head may overwrite every byte before it. */
static int store_head(ReaderCore *self, uint64_t head, size_t count)
{
    uint64_t *words = self->mapping.words;
    store_word(words, WORD_HEAD, head);
    self->head = head;
    self->released += count;
    store_figure(words, WORD_RECORDS_RELEASED, self->released);
    if (ordering_wake(&self->ordering) < 0)
        return -1;
    if (self->is_dead)
        return 0; /* the waker ran somebody's Python, which closed the ring */
    /* Acquire, with RingWriter.request_space: whoever frees space after that look sees this request and rings. */
    uint64_t wanted = load_word(words, WORD_SPACE_WANTED);
    if (wanted == 0 || head < wanted || wanted == self->space_rung)
        return 0;
    self->space_rung = wanted;
    int rung = bell_ring(self->bell);
    if (rung > 0 && !self->is_dead)
        store_figure(words, WORD_CONSUMER_BELLS, ++self->bells);
    return rung < 0 ? -1 : 0;
}

int ring_release_all(PyObject *reader)
{
    ReaderCore *self = (ReaderCore *)reader;
    if (self->is_dead)
        return refuse_dead(self);
    if (self->position == self->head)
        return 0;
    size_t count = self->polled.count;
    ends_drop(&self->polled, count);
    return store_head(self, self->position, count);
}

int ring_release(PyObject *reader, Py_ssize_t count)
{
    ReaderCore *self = (ReaderCore *)reader;
    if (self->is_dead)
        return refuse_dead(self);
    if (count < 0 || (size_t)count > self->polled.count) {
        PyErr_Format(PyExc_ValueError, "%zd records cannot be released, %zu are polled", count, self->polled.count);
        return -1;
    }
    if ((size_t)count == self->polled.count)
        return ring_release_all(reader);
    if (count == 0)
        return 0;
    uint64_t head = self->polled.ends[self->polled.first + (size_t)count - 1];
    ends_drop(&self->polled, (size_t)count);
    return store_head(self, head, (size_t)count);
}

int ring_release_part(PyObject *reader, Py_ssize_t size_left)
{
    ReaderCore *self = (ReaderCore *)reader;
    if (self->is_dead)
        return refuse_dead(self);
    if (self->polled.count == 0 || size_left < 0) {
        PyErr_Format(PyExc_ValueError, "no polled record has %zd bytes left", size_left);
        return -1;
    }
    /* The record lies before its end; up to ALIGNMENT - 1 bytes of padding stand behind the payload. */
    uint64_t before_end = ((uint64_t)size_left + 2 * (ALIGNMENT - 1)) & ~(uint64_t)(ALIGNMENT - 1);
    uint64_t end = self->polled.ends[self->polled.first];
    if (before_end >= end - self->head)
        return 0;
    return store_head(self, end - before_end, 0);
}

/* Methods. */

static PyObject *make_record(ReaderCore *self, const RingRecord *record)
{
    PyObject *view = ring_payload_view((PyObject *)self, record, 0);
    if (view == NULL)
        return NULL;
    unsigned long long sequence = self->sequence - 1;
    PyObject *fields = Py_BuildValue("(HIIKN)", record->kind, record->connection, record->epoch, sequence, view);
    PyObject *arguments = fields == NULL ? NULL : PyTuple_Pack(1, fields);
    PyObject *result = arguments == NULL ? NULL : make_tuple((PyTypeObject *)record_type, arguments, NULL);
    Py_XDECREF(arguments);
    Py_XDECREF(fields);
    return result;
}

/* Records into `records` until a limit is met. 0, or -1 with an exception set. */
static int poll_into(ReaderCore *self, PyObject *records, Py_ssize_t records_max, Py_ssize_t bytes_max)
{
    Py_ssize_t used = 0; /* ring bytes of the records, at most one capacity */
    for (Py_ssize_t i = 0; i < records_max && used < bytes_max; i++) {
        RingRecord record;
        if (self->is_dead)
            return refuse_dead(self);
        int status = next_record(self, &record);
        if (status <= 0)
            return status;
        used += (Py_ssize_t)ring_bytes(record.size);
        PyObject *item = make_record(self, &record);
        if (item == NULL)
            return -1;
        status = PyList_Append(records, item);
        Py_DECREF(item);
        if (status < 0)
            return -1;
    }
    return 0;
}

static int as_limit(PyObject *value, Py_ssize_t *limit)
{
    *limit = PyNumber_AsSsize_t(value, NULL); /* clipped */
    return *limit == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *reader_poll(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"records_max", "bytes_max"};
    ReaderCore *self = (ReaderCore *)object;
    PyObject *values[2] = {NULL};
    Py_ssize_t records_max = 256, bytes_max = 1 << 20;
    if (bind_arguments(args, count, keywords, names, 2, 0, values) < 0 ||
        (values[0] != NULL && as_limit(values[0], &records_max) < 0) ||
        (values[1] != NULL && as_limit(values[1], &bytes_max) < 0))
        return NULL;
    if (self->is_dead) {
        refuse_dead(self);
        return NULL;
    }
    if (load_tail(self) < 0)
        return NULL;
    PyObject *records = PyList_New(0);
    if (records == NULL)
        return NULL;
    uint64_t position = self->position, sequence = self->sequence;
    size_t polled = self->polled.count;
    if (poll_into(self, records, records_max, bytes_max) == 0)
        return records;
    Py_DECREF(records);
    if (!self->is_dead) {
        /* Out of memory: nothing was handed out, so nothing was polled. */
        self->position = position;
        self->sequence = sequence;
        self->polled.count = polled;
    }
    return NULL;
}

static PyObject *none_or_null(int status)
{
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *reader_release(PyObject *object, PyObject *count)
{
    Py_ssize_t number = PyLong_AsSsize_t(count);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    return none_or_null(ring_release(object, number));
}

static PyObject *reader_release_all(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(ring_release_all(object));
}

static PyObject *reader_release_part(PyObject *object, PyObject *size_left)
{
    Py_ssize_t number = PyLong_AsSsize_t(size_left);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    return none_or_null(ring_release_part(object, number));
}

static PyObject *reader_is_empty(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    int is_empty = ring_is_empty(object);
    return is_empty < 0 ? NULL : PyBool_FromLong(is_empty);
}

static PyObject *reader_die(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    ((ReaderCore *)object)->is_dead = 1;
    Py_RETURN_NONE;
}

static PyObject *reader_detach(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    ReaderCore *self = (ReaderCore *)object;
    self->is_dead = 1;
    Py_CLEAR(self->view);
    mapping_drop(&self->mapping);
    Py_RETURN_NONE;
}

static PyMethodDef reader_methods[] = {
    {"poll", (PyCFunction)(void (*)(void))reader_poll, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("See shm/pure.py.")},
    {"release", reader_release, METH_O, PyDoc_STR("See shm/pure.py.")},
    {"release_all", reader_release_all, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"release_part", reader_release_part, METH_O, PyDoc_STR("See shm/pure.py.")},
    {"is_empty", reader_is_empty, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"_die", reader_die, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"_detach", reader_detach, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef reader_members[] = {
    {"_head", T_ULONGLONG, offsetof(ReaderCore, head), READONLY, NULL},
    {"_position", T_ULONGLONG, offsetof(ReaderCore, position), READONLY, NULL},
    {"_sequence", T_ULONGLONG, offsetof(ReaderCore, sequence), READONLY, NULL},
    {"_capacity", T_ULONGLONG, offsetof(ReaderCore, mapping.capacity), READONLY, NULL},
    {"_dead", T_BOOL, offsetof(ReaderCore, is_dead), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The hot half of RingReader.")},
    {Py_tp_new, reader_new},
    {Py_tp_init, reader_init},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {Py_tp_members, reader_members},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "partywire._core.ReaderCore",
    .basicsize = sizeof(ReaderCore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = reader_slots,
};

int add_reader(PyObject *module)
{
    make_tuple = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    reader_type = (PyTypeObject *)PyType_FromSpec(&reader_spec);
    return reader_type == NULL ? -1 : PyModule_AddType(module, reader_type);
}
