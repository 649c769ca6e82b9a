/* The workers' part of partywire._core, with what looks at all receivers of a worker. */

#include "worker.h"

#include <sched.h>
#include <stddef.h>
#include <structmember.h>

PyTypeObject *receiver_type;

/* Receiver. */

static int receiver_init(Receiver *receiver, PyObject *args, PyObject *kwargs)
{
    PyObject *reader;
    static char *names[] = {"reader", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &reader))
        return -1;
    if (!ring_is_reader(reader) || receiver->reader != NULL) {
        PyErr_SetString(PyExc_TypeError, "a compiled receiver is made once, with a compiled ring");
        return -1;
    }
    receiver->reader = Py_NewRef(reader);
    return 0;
}

static int receiver_traverse(Receiver *receiver, visitproc visit, void *arg)
{
    Py_VISIT(type_of(receiver));
    Py_VISIT(receiver->reader);
    return 0;
}

static int receiver_clear(Receiver *receiver)
{
    Py_CLEAR(receiver->reader);
    return 0;
}

static void receiver_dealloc(Receiver *receiver)
{
    PyTypeObject *type = type_of(receiver);
    PyObject_GC_UnTrack(receiver);
    receiver_clear(receiver);
    PyObject_GC_Del(receiver);
    Py_DECREF(type);
}

static PyMemberDef receiver_members[] = {
    {"reader", T_OBJECT, offsetof(Receiver, reader), READONLY, NULL},
    {"is_urgent", T_BOOL, offsetof(Receiver, is_urgent), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of what a worker receives from.")},
    {Py_tp_init, receiver_init},
    {Py_tp_members, receiver_members},
    {Py_tp_traverse, receiver_traverse},
    {Py_tp_clear, receiver_clear},
    {Py_tp_dealloc, receiver_dealloc},
    {0, NULL},
};

static PyType_Spec receiver_spec = {
    .name = "partywire._core.ReceiverHot",
    .basicsize = sizeof(Receiver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = receiver_slots,
};

/* Looking at all of them. */

/* Whether a receiver surely has nothing to do; what cannot be told without its methods counts as something. -1 with an
   exception set. */
static int is_surely_idle(PyObject *receiver)
{
    if (!PyObject_TypeCheck(receiver, receiver_type) || ((Receiver *)receiver)->is_urgent ||
        ((Receiver *)receiver)->reader == NULL)
        return 0;
    int is_empty = ring_is_empty(((Receiver *)receiver)->reader);
    if (is_empty >= 0)
        return is_empty;
    if (is_interruption())
        return -1;
    PyErr_Clear(); /* the receiver's own methods meet the same error and deal with it */
    return 0;
}

/* receive_all(receivers) -> the count of records taken in. `receivers` is a list, which a call may change. */
static PyObject *receive_all(PyObject *Py_UNUSED(module), PyObject *receivers)
{
    long long count = 0;
    for (Py_ssize_t at = 0; at < PyList_Size(receivers); at++) {
        PyObject *receiver = PyList_GetItem(receivers, at);
        if (receiver == NULL)
            return NULL;
        Py_INCREF(receiver);
        int idle = is_surely_idle(receiver);
        PyObject *received = NULL;
        if (idle == 0)
            received = is_lane(receiver) ? lane_receive((Lane *)receiver, NULL)
                                         : PyObject_CallMethod(receiver, "receive", NULL);
        Py_DECREF(receiver);
        if (idle > 0)
            continue;
        if (received == NULL)
            return NULL;
        long long number = PyLong_AsLongLong(received);
        Py_DECREF(received);
        if (number == -1 && PyErr_Occurred())
            return NULL;
        count += number;
    }
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(count);
}

/* all_idle(receivers) -> whether none has anything to receive: the look after the doorbell was armed. */
static PyObject *all_idle(PyObject *Py_UNUSED(module), PyObject *receivers)
{
    for (Py_ssize_t at = 0; at < PyList_Size(receivers); at++) {
        PyObject *receiver = PyList_GetItem(receivers, at);
        if (receiver == NULL)
            return NULL;
        Py_INCREF(receiver);
        int idle = is_surely_idle(receiver);
        PyObject *is_idle = idle == 0 ? PyObject_CallMethod(receiver, "is_idle", NULL) : NULL;
        Py_DECREF(receiver);
        if (idle > 0)
            continue;
        if (is_idle == NULL)
            return NULL;
        int truth = PyObject_IsTrue(is_idle);
        Py_DECREF(is_idle);
        if (truth < 0)
            return NULL;
        if (!truth)
            Py_RETURN_FALSE;
    }
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_TRUE;
}

/* watch(receivers, quiet_ns): look at every receiver, offering the core to others in between, until one has something to
   take in (True) or the time is over (False). The GIL is kept: it is a fraction of a millisecond. */
static PyObject *watch(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *receivers;
    long long quiet_ns;
    if (!PyArg_ParseTuple(args, "O!L", &PyList_Type, &receivers, &quiet_ns))
        return NULL;
    int64_t stop = monotonic_ns() + quiet_ns;
    do {
        for (Py_ssize_t at = 0; at < PyList_Size(receivers); at++) {
            PyObject *receiver = Py_NewRef(PyList_GetItem(receivers, at));
            int idle = is_surely_idle(receiver);
            Py_DECREF(receiver);
            if (idle < 0)
                return NULL;
            if (!idle)
                Py_RETURN_TRUE;
        }
        sched_yield();
    } while (monotonic_ns() < stop);
    Py_RETURN_FALSE;
}

static PyMethodDef functions[] = {
    {"receive_all", receive_all, METH_O, PyDoc_STR("Let every receiver of a list take in what is there.")},
    {"all_idle", all_idle, METH_O, PyDoc_STR("Whether no receiver of a list has anything to take in.")},
    {"watch", watch, METH_VARARGS, PyDoc_STR("Look at receivers until one has something, or the time is over.")},
    {NULL, NULL, 0, NULL},
};

int add_workers(PyObject *module)
{
    return (receiver_type = add_type(module, "ReceiverHot", &receiver_spec, NULL)) == NULL || add_waits(module) < 0 ||
                   add_lanes(module) < 0 || add_sessions(module) < 0 || add_direct(module) < 0 || PyModule_AddFunctions(module, functions) < 0
               ? -1
               : 0;
}
