/* BellCore: a waker's look at the ticket of somebody's doorbell, and the write that wakes it. See shm/doorbell.py. */

#include "layout.h"

#include <errno.h>
#include <structmember.h>
#include <unistd.h>

enum { PAGE_SIZE_OF_TICKET = 4096, WORD_TICKET = 0 };

typedef struct {
    PyObject_HEAD
    uint64_t *words; /* NULL before __init__ and after _detach */
    Py_buffer buffer;
    int eventfd;
    uint64_t ticket_rung;
} BellCore;

static PyTypeObject *bell_type;

static int bell_init(PyObject *object, PyObject *args, PyObject *keywords)
{
    BellCore *self = (BellCore *)object;
    PyObject *map;
    int eventfd;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "a bell's core takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "iO:BellCore", &eventfd, &map))
        return -1;
    if (self->words != NULL) {
        PyErr_SetString(PyExc_TypeError, "a bell is made once");
        return -1;
    }
    if (PyObject_GetBuffer(map, &self->buffer, PyBUF_SIMPLE) < 0)
        return -1;
    if (self->buffer.len != PAGE_SIZE_OF_TICKET || (uintptr_t)self->buffer.buf % sizeof(uint64_t) != 0) {
        PyBuffer_Release(&self->buffer);
        PyErr_SetString(PyExc_ValueError, "a doorbell's page has a wrong size");
        return -1;
    }
    self->words = self->buffer.buf;
    self->eventfd = eventfd;
    return 0;
}

static void bell_drop(BellCore *self)
{
    if (self->words == NULL)
        return;
    self->words = NULL;
    self->eventfd = -1;
    PyBuffer_Release(&self->buffer);
}

static void bell_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    bell_drop((BellCore *)object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Write the eventfd. Never waits: it is non-blocking, and a counter at its limit is readable already. */
static int write_eventfd(BellCore *self)
{
    const uint64_t one = 1;
    if (self->words == NULL)
        return refuse((PyObject *)self, "_refuse_closed", "()");
    while (write(self->eventfd, &one, sizeof one) < 0) {
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
    }
    return 0;
}

static int ring_if_asleep(BellCore *self)
{
    if (self->words == NULL)
        return refuse((PyObject *)self, "_refuse_closed", "()");
    /* Acquire, with Doorbell.arm: whoever publishes after that look sees this ticket and rings. */
    uint64_t ticket = load_word(self->words, WORD_TICKET);
    if (ticket == 0 || ticket == self->ticket_rung)
        return 0;
    self->ticket_rung = ticket;
    return write_eventfd(self) < 0 ? -1 : 1;
}

/* For rings, whose bell may also be one of pure Python or of a test. */

static int call_bell(PyObject *bell, const char *method, int *truth)
{
    PyObject *result = PyObject_CallMethod(bell, method, NULL);
    if (result == NULL)
        return -1;
    *truth = PyObject_IsTrue(result);
    Py_DECREF(result);
    return *truth < 0 ? -1 : 0;
}

int bell_ring_if_asleep(PyObject *bell)
{
    int rung = 0;
    if (bell == Py_None)
        return 0;
    if (PyObject_TypeCheck(bell, bell_type))
        return ring_if_asleep((BellCore *)bell);
    return call_bell(bell, "ring_if_asleep", &rung) < 0 ? -1 : rung;
}

int bell_ring(PyObject *bell)
{
    int ignored;
    if (bell == Py_None)
        return 0;
    if (PyObject_TypeCheck(bell, bell_type))
        return write_eventfd((BellCore *)bell) < 0 ? -1 : 1;
    return call_bell(bell, "ring", &ignored) < 0 ? -1 : 1;
}

/* Methods. */

static PyObject *bell_method_ring_if_asleep(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int rung = ring_if_asleep((BellCore *)self);
    return rung < 0 ? NULL : PyBool_FromLong(rung);
}

static PyObject *bell_method_ring(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (write_eventfd((BellCore *)self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *bell_method_detach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    bell_drop((BellCore *)self);
    Py_RETURN_NONE;
}

static PyMethodDef bell_methods[] = {
    {"ring_if_asleep", bell_method_ring_if_asleep, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"ring", bell_method_ring, METH_NOARGS, PyDoc_STR("See shm/pure.py.")},
    {"_detach", bell_method_detach, METH_NOARGS, PyDoc_STR("Look at the page no more.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef bell_members[] = {
    {"_ticket_rung", T_ULONGLONG, offsetof(BellCore, ticket_rung), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot bell_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The hot half of Bell.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, bell_init},
    {Py_tp_dealloc, bell_dealloc},
    {Py_tp_methods, bell_methods},
    {Py_tp_members, bell_members},
    {0, NULL},
};

static PyType_Spec bell_spec = {
    .name = "partywire._core.BellCore",
    .basicsize = sizeof(BellCore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = bell_slots,
};

int add_doorbell(PyObject *module)
{
    bell_type = (PyTypeObject *)PyType_FromSpec(&bell_spec);
    return bell_type == NULL ? -1 : PyModule_AddType(module, bell_type);
}
