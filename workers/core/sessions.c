/* Session.send and Session.recv: awaitables that do the common case themselves.

   Like a coroutine, a call does nothing until it is awaited, and can be awaited once. The common case (a small `bytes`
   with room in the lane; a message that is there, or that a native driver waits for) runs no Python frame. Everything
   else is handed, before anything has happened, to the coroutine of the Python half: `Session._send` and `_recv`. */

#include "worker.h"

#include <stddef.h>
#include <structmember.h>

PyTypeObject *session_type;

#define MESSAGE_OVERHEAD 128 /* workers/mailbox.py */

enum { OP_SEND, OP_RECV };
enum { OP_NEW, OP_WAITING, OP_DELEGATED, OP_DONE };

typedef struct {
    PyObject_HEAD
    PyObject *session, *peer;
    PyObject *value;   /* send: what to send; recv: `out`, or NULL */
    PyObject *timeout; /* or NULL */
    PyObject *inner;   /* the coroutine of the Python half, while OP_DELEGATED */
    char kind, state;
    char is_running; /* while `inner` is inside a call of ours */
} Operation;

static PyTypeObject *operation_type;
static PyObject *name_timeout, *name_out, *name_peer, *name_value;

static const char already_awaited[] = "cannot reuse already awaited coroutine";
static const char being_awaited[] = "coroutine is being awaited already";
static const char already_executing[] = "coroutine already executing";

/* Operations. */

static PyObject *operation_new(Session *session, int kind, PyObject *peer, PyObject *value, PyObject *timeout)
{
    if (session->mailboxes == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the session was never made");
        return NULL;
    }
    Operation *operation = PyObject_GC_New(Operation, operation_type);
    if (operation == NULL)
        return NULL;
    operation->session = Py_NewRef((PyObject *)session);
    operation->peer = Py_NewRef(peer);
    operation->value = Py_XNewRef(value);
    operation->timeout = Py_XNewRef(timeout);
    operation->inner = NULL;
    operation->kind = (char)kind;
    operation->state = OP_NEW;
    operation->is_running = 0;
    PyObject_GC_Track(operation);
    return (PyObject *)operation;
}

static int operation_clear(Operation *operation)
{
    Py_CLEAR(operation->session);
    Py_CLEAR(operation->peer);
    Py_CLEAR(operation->value);
    Py_CLEAR(operation->timeout);
    Py_CLEAR(operation->inner);
    return 0;
}

static int operation_traverse(Operation *operation, visitproc visit, void *arg)
{
    Py_VISIT(type_of(operation));
    Py_VISIT(operation->session);
    Py_VISIT(operation->peer);
    Py_VISIT(operation->value);
    Py_VISIT(operation->timeout);
    Py_VISIT(operation->inner);
    return 0;
}

/* What a coroutine says when it is dropped without having run. */
static void operation_complain(Operation *operation)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    const char *name = operation->kind == OP_SEND ? "send" : "recv";
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine 'Session.%s' was never awaited", name) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(type, error, traceback);
}

static void operation_dealloc(Operation *operation)
{
    PyTypeObject *type = type_of(operation);
    PyObject_GC_UnTrack(operation);
    if (operation->state == OP_NEW)
        operation_complain(operation);
    operation_clear(operation);
    PyObject_GC_Del(operation);
    Py_DECREF(type);
}

static void operation_end(Operation *operation)
{
    operation->state = OP_DONE;
    operation_clear(operation);
}

/* The mailbox of the peer, borrowed; NULL without an exception when the Python half has to find out why not. */
static Mailbox *operation_mailbox(Operation *operation)
{
    Session *session = (Session *)operation->session;
    PyObject *found = PyDict_GetItemWithError(session->mailboxes, operation->peer); /* operation_new checked it */
    if (found == NULL) {
        PyErr_Clear(); /* an unhashable peer: Session._send and _recv say what is wrong with it */
        return NULL;
    }
    return is_mailbox(found) ? (Mailbox *)found : NULL;
}

static int is_none(PyObject *object)
{
    return object == NULL || object == Py_None;
}

/* 1: sent; 0: the Python half has to; -1: exception set. */
static int try_send(Operation *operation)
{
    Mailbox *mailbox = operation_mailbox(operation);
    if (mailbox == NULL || !is_none(mailbox->failure) || mailbox->is_sending)
        return 0;
    PyObject *value = operation->value;
    if (!PyBytes_CheckExact(value) || !is_lane(mailbox->lane))
        return 0;
    Lane *lane = (Lane *)mailbox->lane;
    if (PyBytes_Size(value) > lane->small_size_max)
        return lane_write_bytes(lane, ((Session *)operation->session)->id, value);
    if (lane->parts_size >= lane->parts_size_max)
        return 0;
    return lane_append_bytes(lane, ((Session *)operation->session)->id, value) < 0 ? -1 : 1;
}

/* The message if it is there and needs nothing but taking: 1; nothing there: 0; the Python half has to: 2. */
static int try_recv(Operation *operation, Mailbox *mailbox, PyObject **message)
{
    if (mailbox->behind != 0)
        return 2;
    if (mailbox->queue->count == 0)
        return 0;
    if (!PyBytes_CheckExact(mailbox->queue->items[mailbox->queue->first]))
        return 2;
    *message = queue_pop(mailbox->queue);
    PyObject *worker = ((Session *)operation->session)->worker;
    if (is_worker(worker))
        ((Worker *)worker)->inbox_size -= (long long)PyBytes_Size(*message) + MESSAGE_OVERHEAD;
    return 1;
}

/* The coroutine of the Python half that does the whole call. */
static PyObject *operation_coroutine(Operation *operation)
{
    int sends = operation->kind == OP_SEND;
    PyObject *method = PyObject_GetAttrString(operation->session, sends ? "_send" : "_recv");
    PyObject *args = sends ? PyTuple_Pack(2, operation->peer, operation->value) : PyTuple_Pack(1, operation->peer);
    PyObject *keywords = PyDict_New(), *coroutine = NULL;
    int failed = method == NULL || args == NULL || keywords == NULL;
    if (!failed && operation->timeout != NULL)
        failed = PyDict_SetItem(keywords, name_timeout, operation->timeout) < 0;
    if (!failed && !sends && operation->value != NULL)
        failed = PyDict_SetItem(keywords, name_out, operation->value) < 0;
    if (!failed)
        coroutine = PyObject_Call(method, args, keywords);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    return coroutine;
}

/* Resume the coroutine of the Python half. */
static PySendResult operation_resume(Operation *operation, PyObject *value, PyObject **result)
{
    if (operation->is_running) {
        PyErr_SetString(PyExc_ValueError, already_executing);
        return PYGEN_ERROR;
    }
    PyObject *inner = Py_NewRef(operation->inner); /* what it runs may end us */
    operation->is_running = 1;
    PySendResult sent = PyIter_Send(inner, value, result);
    operation->is_running = 0;
    Py_DECREF(inner);
    if (sent != PYGEN_NEXT)
        operation_end(operation);
    return sent;
}

/* Hand over to the Python half; nothing has happened yet. */
static PySendResult operation_delegate(Operation *operation, PyObject **result)
{
    operation->inner = operation_coroutine(operation);
    if (operation->inner == NULL) {
        operation_end(operation);
        return PYGEN_ERROR;
    }
    operation->state = OP_DELEGATED;
    return operation_resume(operation, Py_None, result);
}

static PySendResult operation_send_on(Operation *operation, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (operation->state == OP_DELEGATED)
        return operation_resume(operation, value, result);
    if (operation->state == OP_DONE || operation->session == NULL) { /* NULL: the garbage collector has been here */
        PyErr_SetString(PyExc_RuntimeError, already_awaited);
        return PYGEN_ERROR;
    }
    if (operation->kind == OP_SEND) {
        int sent = try_send(operation);
        if (sent == 0)
            return operation_delegate(operation, result);
        operation_end(operation);
        if (sent < 0)
            return PYGEN_ERROR;
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    Mailbox *mailbox = operation_mailbox(operation);
    if (mailbox == NULL || operation->value != NULL || operation->timeout != NULL)
        return operation_delegate(operation, result);
    int received = try_recv(operation, mailbox, result);
    if (received == 1) {
        operation_end(operation);
        return PYGEN_RETURN;
    }
    PyObject *worker = ((Session *)operation->session)->worker;
    int is_driving = is_worker(worker) && ((Worker *)worker)->driving;
    if (received == 2 || !is_driving || !is_none(mailbox->failure) || !is_none(mailbox->wait.waker))
        return operation_delegate(operation, result);
    /* Stand at the mailbox; the driver sets its waker. */
    operation->state = OP_WAITING;
    *result = Py_NewRef((PyObject *)mailbox);
    return PYGEN_NEXT;
}

/* The iterator of an `await`, of which there is one. */
static PyObject *operation_await(Operation *operation)
{
    if (operation->state == OP_NEW)
        return Py_NewRef((PyObject *)operation);
    PyErr_SetString(PyExc_RuntimeError, operation->state == OP_DONE ? already_awaited : being_awaited);
    return NULL;
}

static PyObject *operation_iter(PyObject *self)
{
    return Py_NewRef(self);
}

/* The methods of a coroutine, for whoever calls them by name. */

static PyObject *operation_result(PySendResult sent, PyObject *result)
{
    if (sent == PYGEN_NEXT)
        return result;
    if (sent == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
        if (stop != NULL)
            PyErr_SetObject(PyExc_StopIteration, stop);
        Py_XDECREF(stop);
        Py_XDECREF(result);
    }
    return NULL;
}

static PyObject *operation_send(Operation *operation, PyObject *value)
{
    PyObject *result;
    PySendResult sent = operation_send_on(operation, value, &result);
    return operation_result(sent, result);
}

static PyObject *operation_next(Operation *operation)
{
    return operation_send(operation, Py_None);
}

/* throw(type_or_error[, value[, traceback]]) */
static PyObject *operation_throw(Operation *operation, PyObject *args)
{
    if (operation->is_running) {
        PyErr_SetString(PyExc_ValueError, already_executing);
        return NULL;
    }
    if (operation->state == OP_DONE) {
        PyErr_SetString(PyExc_RuntimeError, already_awaited);
        return NULL;
    }
    if (operation->state == OP_DELEGATED) {
        PyObject *inner = Py_NewRef(operation->inner);
        PyObject *method = PyObject_GetAttrString(inner, "throw");
        operation->is_running = 1;
        PyObject *result = method != NULL ? PyObject_CallObject(method, args) : NULL;
        operation->is_running = 0;
        Py_XDECREF(method);
        Py_DECREF(inner);
        if (result == NULL)
            operation_end(operation);
        return result;
    }
    PyObject *type, *value = NULL, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "O|OO", &type, &value, &traceback))
        return NULL;
    operation_end(operation); /* a waiting operation has nothing to undo: the mailbox keeps its messages */
    if (PyExceptionInstance_Check(type))
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    else if (PyExceptionClass_Check(type))
        PyErr_SetObject(type, value);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    return NULL;
}

static PyObject *operation_close(Operation *operation, PyObject *Py_UNUSED(ignored))
{
    if (operation->is_running) {
        PyErr_SetString(PyExc_ValueError, already_executing);
        return NULL;
    }
    PyObject *inner = operation->state == OP_DELEGATED ? Py_NewRef(operation->inner) : NULL;
    operation_end(operation);
    if (inner != NULL) {
        PyObject *closed = PyObject_CallMethod(inner, "close", NULL);
        Py_DECREF(inner);
        if (closed == NULL)
            return NULL;
        Py_DECREF(closed);
    }
    Py_RETURN_NONE;
}

/* What asyncio's debug output and Task.get_stack look at. */

static PyObject *operation_name(Operation *operation, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(operation->kind == OP_SEND ? "send" : "recv");
}

static PyObject *operation_qualname(Operation *operation, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(operation->kind == OP_SEND ? "Session.send" : "Session.recv");
}

/* An attribute of the coroutine of the Python half; None while there is none. */
static PyObject *operation_inner_attribute(Operation *operation, void *name)
{
    return operation->inner == NULL ? Py_NewRef(Py_None) : PyObject_GetAttrString(operation->inner, name);
}

static PyObject *operation_is_running(Operation *operation, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(operation->is_running);
}

static PyGetSetDef operation_getset[] = {
    {"__name__", (getter)operation_name, NULL, NULL, NULL},
    {"__qualname__", (getter)operation_qualname, NULL, NULL, NULL},
    {"cr_await", (getter)operation_inner_attribute, NULL, NULL, "cr_await"},
    {"cr_code", (getter)operation_inner_attribute, NULL, NULL, "cr_code"},
    {"cr_frame", (getter)operation_inner_attribute, NULL, NULL, "cr_frame"},
    {"cr_running", (getter)operation_is_running, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef operation_methods[] = {
    {"send", (PyCFunction)operation_send, METH_O, PyDoc_STR("As of a coroutine.")},
    {"throw", (PyCFunction)operation_throw, METH_VARARGS, PyDoc_STR("As of a coroutine.")},
    {"close", (PyCFunction)operation_close, METH_NOARGS, PyDoc_STR("As of a coroutine.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot operation_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A call of Session.send or recv: an awaitable with the methods of a coroutine.")},
    {Py_tp_methods, operation_methods},
    {Py_tp_getset, operation_getset},
    {Py_tp_traverse, operation_traverse},
    {Py_tp_clear, operation_clear},
    {Py_tp_dealloc, operation_dealloc},
    {Py_tp_iter, operation_iter},
    {Py_tp_iternext, operation_next},
    {Py_am_await, operation_await},
    {Py_am_send, operation_send_on},
    {0, NULL},
};

static PyType_Spec operation_spec = {
    .name = "partywire._core.Operation",
    .basicsize = sizeof(Operation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = operation_slots,
};

/* Session. */

typedef struct {
    PyObject *name;
    PyObject **place; /* gets a borrowed reference; NULL stays for what is not given, and for an optional None */
} Parameter;

/* Sort the arguments of a fast call. The first `required` parameters may be positional, the others may not. */
static int take_arguments(const char *function, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
                          const Parameter *parameters, Py_ssize_t required, Py_ssize_t total)
{
    if (count > required) {
        PyErr_Format(PyExc_TypeError, "Session.%s() takes %zd positional arguments but %zd were given", function,
                     required, count);
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; at++)
        *parameters[at].place = args[at];
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_Size(keywords);
    for (Py_ssize_t at = 0; at < named; at++) {
        PyObject *keyword = PyTuple_GetItem(keywords, at), *value = args[count + at];
        Py_ssize_t found = 0;
        while (found < total && keyword != parameters[found].name &&
               PyUnicode_Compare(keyword, parameters[found].name) != 0)
            found++;
        if (found == total || *parameters[found].place != NULL) {
            const char *what = found == total ? "an unexpected keyword argument" : "multiple values for argument";
            PyErr_Format(PyExc_TypeError, "Session.%s() got %s '%U'", function, what, keyword);
            return -1;
        }
        if (found < required || value != Py_None)
            *parameters[found].place = value;
    }
    for (Py_ssize_t at = 0; at < required; at++) {
        if (*parameters[at].place == NULL) {
            PyErr_Format(PyExc_TypeError, "Session.%s() misses the required argument '%U'", function,
                         parameters[at].name);
            return -1;
        }
    }
    return 0;
}

static PyObject *session_send(Session *session, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *peer = NULL, *value = NULL, *timeout = NULL;
    const Parameter parameters[] = {{name_peer, &peer}, {name_value, &value}, {name_timeout, &timeout}};
    if (take_arguments("send", args, count, keywords, parameters, 2, 3) < 0)
        return NULL;
    return operation_new(session, OP_SEND, peer, value, timeout);
}

static PyObject *session_recv(Session *session, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *peer = NULL, *out = NULL, *timeout = NULL;
    const Parameter parameters[] = {{name_peer, &peer}, {name_out, &out}, {name_timeout, &timeout}};
    if (take_arguments("recv", args, count, keywords, parameters, 1, 3) < 0)
        return NULL;
    return operation_new(session, OP_RECV, peer, out, timeout);
}

/* The calls for neighbours: `peer` is an index. */

static PyObject *send_to(Session *session, int peer, const char *function, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *value = NULL, *timeout = NULL;
    const Parameter parameters[] = {{name_value, &value}, {name_timeout, &timeout}};
    if (take_arguments(function, args, count, keywords, parameters, 1, 2) < 0)
        return NULL;
    PyObject *index = PyLong_FromLong(peer);
    if (index == NULL)
        return NULL;
    PyObject *operation = operation_new(session, OP_SEND, index, value, timeout);
    Py_DECREF(index);
    return operation;
}

static PyObject *recv_of(Session *session, int peer, const char *function, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *out = NULL, *timeout = NULL;
    const Parameter parameters[] = {{name_out, &out}, {name_timeout, &timeout}};
    if (take_arguments(function, args, count, keywords, parameters, 0, 2) < 0)
        return NULL;
    PyObject *index = PyLong_FromLong(peer);
    if (index == NULL)
        return NULL;
    PyObject *operation = operation_new(session, OP_RECV, index, out, timeout);
    Py_DECREF(index);
    return operation;
}

static PyObject *session_send_next(Session *session, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return send_to(session, session->next, "send_next", args, count, keywords);
}

static PyObject *session_send_prev(Session *session, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return send_to(session, session->previous, "send_prev", args, count, keywords);
}

static PyObject *session_recv_next(Session *session, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return recv_of(session, session->next, "recv_next", args, count, keywords);
}

static PyObject *session_recv_prev(Session *session, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return recv_of(session, session->previous, "recv_prev", args, count, keywords);
}

static int session_init(Session *session, PyObject *args, PyObject *kwargs)
{
    PyObject *worker;
    unsigned int id;
    int next, previous;
    static char *names[] = {"worker", "session_id", "next_peer", "previous_peer", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OIii", names, &worker, &id, &next, &previous))
        return -1;
    if (session->mailboxes != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a session is made once");
        return -1;
    }
    session->mailboxes = PyDict_New();
    if (session->mailboxes == NULL)
        return -1;
    session->worker = Py_NewRef(worker);
    session->id = id;
    session->next = next;
    session->previous = previous;
    return 0;
}

static int session_traverse(Session *session, visitproc visit, void *arg)
{
    Py_VISIT(type_of(session));
    Py_VISIT(session->worker);
    Py_VISIT(session->mailboxes);
    return 0;
}

static int session_clear(Session *session)
{
    Py_CLEAR(session->worker);
    if (session->mailboxes != NULL)
        PyDict_Clear(session->mailboxes);
    return 0;
}

static void session_dealloc(Session *session)
{
    PyTypeObject *type = type_of(session);
    PyObject_GC_UnTrack(session);
    Py_CLEAR(session->worker);
    Py_CLEAR(session->mailboxes);
    PyObject_GC_Del(session);
    Py_DECREF(type);
}

static PyMemberDef session_members[] = {
    {"worker", T_OBJECT, offsetof(Session, worker), READONLY, NULL},
    {"id", T_UINT, offsetof(Session, id), 0, NULL}, /* changed by `reset` alone */
    {"_mailboxes", T_OBJECT, offsetof(Session, mailboxes), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define FAST (METH_FASTCALL | METH_KEYWORDS)

/* Short forms of what stands at `_send` and `_recv` in workers/session.py, for help() and inspect.signature. */
#define SEND_DOC                                                                                                       \
    "\nReturns when the value has been copied: at once as long as there is room. Raises SessionTimeout, PeerLost,\n"    \
    "PeerClosed, PeerAborted (the session is over); MessageTooLarge, TypeError (nothing was sent, it goes on)."
#define RECV_DOC                                                                                                       \
    "\nWith `out` (a numpy array, or a bytearray for bytes) the message is put into its memory. Cancelling loses no\n"  \
    "message. Raises UnexpectedMessage (it does not fit `out` and stays first in line), SessionTimeout, SessionDesync,\n" \
    "PeerLost, PeerClosed, PeerAborted, InboxOverflow (the session is over)."

static PyMethodDef session_methods[] = {
    {"send", (PyCFunction)(void (*)(void))session_send, FAST,
     PyDoc_STR("send($self, peer, value, *, timeout=None)\n--\n\n"
               "Send one message to a peer, named or by index.\n" SEND_DOC)},
    {"recv", (PyCFunction)(void (*)(void))session_recv, FAST,
     PyDoc_STR("recv($self, peer, *, out=None, timeout=None)\n--\n\n"
               "Receive the next message of a peer, named or by index.\n" RECV_DOC)},
    {"send_next", (PyCFunction)(void (*)(void))session_send_next, FAST,
     PyDoc_STR("send_next($self, value, *, timeout=None)\n--\n\n"
               "Send to the party with the next index, the first after the last.\n" SEND_DOC)},
    {"send_prev", (PyCFunction)(void (*)(void))session_send_prev, FAST,
     PyDoc_STR("send_prev($self, value, *, timeout=None)\n--\n\n"
               "Send to the party with the index before ours.\n" SEND_DOC)},
    {"recv_next", (PyCFunction)(void (*)(void))session_recv_next, FAST,
     PyDoc_STR("recv_next($self, *, out=None, timeout=None)\n--\n\n"
               "Receive from the party with the next index.\n" RECV_DOC)},
    {"recv_prev", (PyCFunction)(void (*)(void))session_recv_prev, FAST,
     PyDoc_STR("recv_prev($self, *, out=None, timeout=None)\n--\n\n"
               "Receive from the party with the index before ours.\n" RECV_DOC)},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of workers.session.Session.")},
    {Py_tp_init, session_init},
    {Py_tp_members, session_members},
    {Py_tp_methods, session_methods},
    {Py_tp_traverse, session_traverse},
    {Py_tp_clear, session_clear},
    {Py_tp_dealloc, session_dealloc},
    {0, NULL},
};

static PyType_Spec session_spec = {
    .name = "partywire._core.SessionHot",
    .basicsize = sizeof(Session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = session_slots,
};

int add_sessions(PyObject *module)
{
    return (name_timeout = PyUnicode_InternFromString("timeout")) == NULL ||
                   (name_out = PyUnicode_InternFromString("out")) == NULL ||
                   (name_peer = PyUnicode_InternFromString("peer")) == NULL ||
                   (name_value = PyUnicode_InternFromString("value")) == NULL ||
                   (operation_type = add_type(module, "Operation", &operation_spec, NULL)) == NULL ||
                   (session_type = add_type(module, "SessionHot", &session_spec, NULL)) == NULL
               ? -1
               : 0;
}
