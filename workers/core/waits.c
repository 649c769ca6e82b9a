/* Queue, Worker, Wait, Mailbox and Slot: where coroutines stand and what wakes them. */

#include "worker.h"

#include <math.h>
#include <structmember.h>
#include <stddef.h>
#include <string.h>

PyTypeObject *queue_type, *worker_type, *wait_type, *mailbox_type, *slot_type;

#define QUEUE_CAPACITY_MIN 4
#define QUEUE_CAPACITY_KEPT 1024 /* entries for which an empty queue keeps room */

PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *spec, PyTypeObject *base)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    if (type == NULL)
        return NULL;
    if (PyModule_AddObjectRef(module, name, type) < 0) {
        Py_DECREF(type);
        return NULL;
    }
    return (PyTypeObject *)type; /* the caller keeps this reference for the life of the process */
}

/* Queue. */

Queue *queue_new(void)
{
    return (Queue *)PyObject_CallNoArgs((PyObject *)queue_type);
}

static int queue_grow(Queue *queue)
{
    Py_ssize_t capacity = queue->capacity ? 2 * queue->capacity : QUEUE_CAPACITY_MIN;
    PyObject **items = PyMem_Malloc((size_t)capacity * sizeof *items);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t at = 0; at < queue->count; at++)
        items[at] = queue->items[(queue->first + at) & (queue->capacity - 1)];
    PyMem_Free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    queue->first = 0;
    return 0;
}

int queue_push(Queue *queue, PyObject *item)
{
    if (queue->count == queue->capacity && queue_grow(queue) < 0)
        return -1;
    Py_INCREF(item);
    queue->items[(queue->first + queue->count++) & (queue->capacity - 1)] = item;
    return 0;
}

PyObject *queue_pop(Queue *queue)
{
    if (queue->count == 0)
        return NULL;
    PyObject *item = queue->items[queue->first];
    queue->first = (queue->first + 1) & (queue->capacity - 1);
    if (--queue->count == 0 && queue->capacity > QUEUE_CAPACITY_KEPT) {
        PyMem_Free(queue->items);
        queue->items = NULL;
        queue->capacity = queue->first = 0;
    }
    return item;
}

static PyObject *queue_append(Queue *queue, PyObject *item)
{
    if (queue_push(queue, item) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *queue_popleft(Queue *queue, PyObject *Py_UNUSED(ignored))
{
    PyObject *item = queue_pop(queue);
    if (item == NULL)
        PyErr_SetString(PyExc_IndexError, "pop from an empty queue");
    return item;
}

static int queue_clear_items(Queue *queue)
{
    PyObject *item;
    while ((item = queue_pop(queue)) != NULL)
        Py_DECREF(item);
    return 0;
}

static PyObject *queue_clear(Queue *queue, PyObject *Py_UNUSED(ignored))
{
    queue_clear_items(queue);
    Py_RETURN_NONE;
}

static Py_ssize_t queue_length(Queue *queue)
{
    return queue->count;
}

static PyObject *queue_item(Queue *queue, Py_ssize_t index)
{
    if (index < 0 || index >= queue->count) {
        PyErr_SetString(PyExc_IndexError, "queue index out of range");
        return NULL;
    }
    return Py_NewRef(queue->items[(queue->first + index) & (queue->capacity - 1)]);
}

static int queue_set_item(Queue *queue, Py_ssize_t index, PyObject *item)
{
    if (index < 0 || index >= queue->count || item == NULL) {
        PyErr_SetString(PyExc_IndexError, "queue index out of range");
        return -1;
    }
    PyObject **place = &queue->items[(queue->first + index) & (queue->capacity - 1)];
    PyObject *before = *place;
    *place = Py_NewRef(item);
    Py_DECREF(before);
    return 0;
}

static int queue_traverse(Queue *queue, visitproc visit, void *arg)
{
    Py_VISIT(type_of(queue));
    for (Py_ssize_t at = 0; at < queue->count; at++)
        Py_VISIT(queue->items[(queue->first + at) & (queue->capacity - 1)]);
    return 0;
}

static void queue_dealloc(Queue *queue)
{
    PyTypeObject *type = type_of(queue);
    PyObject_GC_UnTrack(queue);
    queue_clear_items(queue);
    PyMem_Free(queue->items);
    PyObject_GC_Del(queue);
    Py_DECREF(type);
}

static PyMethodDef queue_methods[] = {
    {"append", (PyCFunction)queue_append, METH_O, PyDoc_STR("Put an item at the end.")},
    {"popleft", (PyCFunction)queue_popleft, METH_NOARGS, PyDoc_STR("Remove the first item; IndexError when empty.")},
    {"clear", (PyCFunction)queue_clear, METH_NOARGS, PyDoc_STR("Forget every item.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A first-in first-out queue; what collections.deque is to the pure core.")},
    {Py_tp_methods, queue_methods},
    {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear_items},
    {Py_tp_dealloc, queue_dealloc},
    {Py_sq_length, queue_length},
    {Py_sq_item, queue_item},
    {Py_sq_ass_item, queue_set_item},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "partywire._core.Queue",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = queue_slots,
};

/* Worker. */

static PyMemberDef worker_members[] = {
    {"inbox_size", T_LONGLONG, offsetof(Worker, inbox_size), 0, NULL},
    {"inbox_size_max", T_LONGLONG, offsetof(Worker, inbox_size_max), 0, NULL},
    {"driving", T_BOOL, offsetof(Worker, driving), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int plain_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(type_of(self));
    return 0;
}

static void plain_dealloc(PyObject *self)
{
    PyTypeObject *type = type_of(self);
    PyObject_GC_UnTrack(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot worker_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of workers.worker.Worker.")},
    {Py_tp_members, worker_members},
    {Py_tp_traverse, plain_traverse},
    {Py_tp_dealloc, plain_dealloc},
    {0, NULL},
};

static PyType_Spec worker_spec = {
    .name = "partywire._core.WorkerHot",
    .basicsize = sizeof(Worker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = worker_slots,
};

/* Wait. */

static PyObject *wait_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Wait *wait = (Wait *)allocate(type, 0);
    if (wait != NULL)
        wait->deadline = wait->timer_at = INFINITY;
    return (PyObject *)wait;
}

static int wait_init(Wait *wait, PyObject *args, PyObject *kwargs)
{
    PyObject *worker;
    static char *names[] = {"worker", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &worker))
        return -1;
    PyObject *before = wait->worker;
    wait->worker = Py_NewRef(worker);
    Py_XDECREF(before);
    return 0;
}

int wait_wake(Wait *wait)
{
    PyObject *waker = wait->waker;
    if (waker == NULL || waker == Py_None)
        return 0;
    wait->waker = NULL;
    int result = 0;
    if (is_slot(waker)) {
        Slot *slot = (Slot *)waker;
        if (slot->ready != NULL)
            result = queue_push((Queue *)slot->ready, waker);
    } else {
        PyObject *done = PyObject_CallNoArgs(waker);
        if (done == NULL)
            result = -1;
        else
            Py_DECREF(done);
    }
    Py_DECREF(waker);
    return result;
}

static PyObject *wait_wake_method(Wait *wait, PyObject *Py_UNUSED(ignored))
{
    if (wait_wake(wait) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Whether a native driver resumes coroutines. -1 with an exception set. */
static int is_driving(PyObject *worker)
{
    if (is_worker(worker))
        return ((Worker *)worker)->driving;
    PyObject *driving = PyObject_GetAttrString(worker ? worker : Py_None, "driving");
    if (driving == NULL)
        return -1;
    int truth = PyObject_IsTrue(driving);
    Py_DECREF(driving);
    return truth;
}

static PyObject *wait_await(Wait *wait)
{
    int driving = is_driving(wait->worker);
    if (driving < 0)
        return NULL;
    if (!driving)
        return PyObject_CallMethod((PyObject *)wait, "_await_in_loop", NULL);
    /* A tuple's iterator yields the wait itself, once: the driver makes a note of whom to wake. */
    PyObject *once = PyTuple_Pack(1, wait);
    if (once == NULL)
        return NULL;
    PyObject *iterator = PyObject_GetIter(once);
    Py_DECREF(once);
    return iterator;
}

static int wait_traverse(Wait *wait, visitproc visit, void *arg)
{
    Py_VISIT(type_of(wait));
    Py_VISIT(wait->worker);
    Py_VISIT(wait->waker);
    return 0;
}

static int wait_clear(Wait *wait)
{
    Py_CLEAR(wait->worker);
    Py_CLEAR(wait->waker);
    return 0;
}

static void wait_dealloc(Wait *wait)
{
    PyTypeObject *type = type_of(wait);
    PyObject_GC_UnTrack(wait);
    wait_clear(wait);
    PyObject_GC_Del(wait);
    Py_DECREF(type);
}

static PyMemberDef wait_members[] = {
    {"worker", T_OBJECT, offsetof(Wait, worker), 0, NULL},
    {"waker", T_OBJECT, offsetof(Wait, waker), 0, NULL},
    {"deadline", T_DOUBLE, offsetof(Wait, deadline), 0, NULL},
    {"timer_at", T_DOUBLE, offsetof(Wait, timer_at), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef wait_methods[] = {
    {"wake", (PyCFunction)wait_wake_method, METH_NOARGS,
     PyDoc_STR("Let the coroutine go on, if one stands here. It runs at its driver's next turn.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of workers.waiting.Wait.")},
    {Py_tp_new, wait_new},
    {Py_tp_init, wait_init},
    {Py_tp_members, wait_members},
    {Py_tp_methods, wait_methods},
    {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},
    {Py_tp_dealloc, wait_dealloc},
    {Py_am_await, wait_await},
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "partywire._core.WaitHot",
    .basicsize = sizeof(Wait),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = wait_slots,
};

/* Mailbox. */

static PyObject *mailbox_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Mailbox *mailbox = (Mailbox *)wait_new(type, args, kwargs);
    if (mailbox == NULL)
        return NULL;
    mailbox->queue = queue_new();
    if (mailbox->queue == NULL) {
        Py_DECREF(mailbox);
        return NULL;
    }
    return (PyObject *)mailbox;
}

static int mailbox_traverse(Mailbox *mailbox, visitproc visit, void *arg)
{
    Py_VISIT(mailbox->session);
    Py_VISIT(mailbox->lane);
    Py_VISIT(mailbox->failure);
    Py_VISIT(mailbox->queue);
    return wait_traverse(&mailbox->wait, visit, arg);
}

static int mailbox_clear(Mailbox *mailbox)
{
    Py_CLEAR(mailbox->session);
    Py_CLEAR(mailbox->lane);
    Py_CLEAR(mailbox->failure);
    return wait_clear(&mailbox->wait); /* the queue stays, so that it is never NULL; what is in it has its own clear */
}

static void mailbox_dealloc(Mailbox *mailbox)
{
    PyTypeObject *type = type_of(mailbox);
    PyObject_GC_UnTrack(mailbox);
    mailbox_clear(mailbox);
    Py_CLEAR(mailbox->queue);
    PyObject_GC_Del(mailbox);
    Py_DECREF(type);
}

static PyMemberDef mailbox_members[] = {
    {"session", T_OBJECT, offsetof(Mailbox, session), 0, NULL},
    {"lane", T_OBJECT, offsetof(Mailbox, lane), 0, NULL},
    {"failure", T_OBJECT, offsetof(Mailbox, failure), 0, NULL},
    {"queue", T_OBJECT, offsetof(Mailbox, queue), READONLY, NULL},
    {"behind", T_LONG, offsetof(Mailbox, behind), 0, NULL},
    {"is_sending", T_BOOL, offsetof(Mailbox, is_sending), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot mailbox_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of workers.mailbox.Mailbox.")},
    {Py_tp_new, mailbox_new},
    {Py_tp_members, mailbox_members},
    {Py_tp_traverse, mailbox_traverse},
    {Py_tp_clear, mailbox_clear},
    {Py_tp_dealloc, mailbox_dealloc},
    {0, NULL},
};

static PyType_Spec mailbox_spec = {
    .name = "partywire._core.MailboxHot",
    .basicsize = sizeof(Mailbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = mailbox_slots,
};

/* Slot. */

static int slot_init(Slot *slot, PyObject *args, PyObject *kwargs)
{
    PyObject *coroutine, *ready;
    static char *names[] = {"coroutine", "ready", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!", names, &coroutine, queue_type, &ready))
        return -1;
    PyObject *before = slot->coroutine, *ready_before = slot->ready;
    slot->coroutine = Py_NewRef(coroutine);
    slot->ready = Py_NewRef(ready);
    Py_XDECREF(before);
    Py_XDECREF(ready_before);
    return 0;
}

static PyObject *slot_call(Slot *slot, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    if (slot->ready != NULL && queue_push((Queue *)slot->ready, (PyObject *)slot) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int slot_traverse(Slot *slot, visitproc visit, void *arg)
{
    Py_VISIT(type_of(slot));
    Py_VISIT(slot->coroutine);
    Py_VISIT(slot->session);
    Py_VISIT(slot->wait);
    Py_VISIT(slot->task);
    Py_VISIT(slot->ready);
    return 0;
}

static int slot_clear(Slot *slot)
{
    Py_CLEAR(slot->coroutine);
    Py_CLEAR(slot->session);
    Py_CLEAR(slot->wait);
    Py_CLEAR(slot->task);
    Py_CLEAR(slot->ready);
    return 0;
}

static void slot_dealloc(Slot *slot)
{
    PyTypeObject *type = type_of(slot);
    PyObject_GC_UnTrack(slot);
    slot_clear(slot);
    PyObject_GC_Del(slot);
    Py_DECREF(type);
}

static PyMemberDef slot_members[] = {
    {"coroutine", T_OBJECT, offsetof(Slot, coroutine), 0, NULL},
    {"session", T_OBJECT, offsetof(Slot, session), 0, NULL},
    {"wait", T_OBJECT, offsetof(Slot, wait), 0, NULL},
    {"task", T_OBJECT, offsetof(Slot, task), 0, NULL},
    {"is_done", T_BOOL, offsetof(Slot, is_done), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slot_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of workers.scheduler.Slot. Calling it makes it ready.")},
    {Py_tp_init, slot_init},
    {Py_tp_call, slot_call},
    {Py_tp_members, slot_members},
    {Py_tp_traverse, slot_traverse},
    {Py_tp_clear, slot_clear},
    {Py_tp_dealloc, slot_dealloc},
    {0, NULL},
};

static PyType_Spec slot_spec = {
    .name = "partywire._core.SlotHot",
    .basicsize = sizeof(Slot),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slot_slots,
};

/* What became of one resumption: tell the scheduler, or note where the coroutine stands. -1 with an exception set. */
static int slot_settle(Slot *slot, PySendResult sent, PyObject *value, PyObject *finish, PyObject *promote)
{
    PyObject *told = NULL;
    if (sent == PYGEN_NEXT && is_wait(value)) {
        Wait *wait = (Wait *)value;
        PyObject *before = slot->wait, *waker_before = wait->waker;
        slot->wait = value; /* takes the reference over */
        wait->waker = Py_NewRef((PyObject *)slot);
        Py_XDECREF(before);
        Py_XDECREF(waker_before);
        return 0;
    }
    if (sent == PYGEN_NEXT)
        told = PyObject_CallFunctionObjArgs(promote, slot, value, NULL);
    else if (sent == PYGEN_RETURN)
        told = PyObject_CallFunctionObjArgs(finish, slot, value, Py_None, NULL);
    else {
        PyObject *type, *error, *traceback;
        int ends_all = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback != NULL)
            PyException_SetTraceback(error, traceback);
        told = PyObject_CallFunctionObjArgs(finish, slot, Py_None, ends_all ? Py_None : error, NULL);
        if (told != NULL && ends_all) {
            Py_DECREF(told);
            PyErr_Restore(type, error, traceback);
            return -1;
        }
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    }
    Py_XDECREF(value);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* run_slots(ready, limit, enough, time_ns, time_max_ns, finish, promote) -> resumptions. The clock is looked at after
   every eighth, so that it is no part of what each one costs. */
static PyObject *run_slots(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *ready_object, *finish, *promote;
    Py_ssize_t limit, enough;
    long long time_ns, time_max_ns;
    if (!PyArg_ParseTuple(args, "O!nnLLOO", queue_type, &ready_object, &limit, &enough, &time_ns, &time_max_ns, &finish,
                          &promote))
        return NULL;
    Queue *ready = (Queue *)ready_object;
    if (limit > ready->count)
        limit = ready->count;
    int64_t start = monotonic_ns();
    Py_ssize_t count = 0;
    while (count < limit && ready->count > 0) {
        PyObject *item = queue_pop(ready);
        count++;
        Slot *slot = (Slot *)item;
        if (!is_slot(item) || slot->is_done || slot->coroutine == NULL) {
            Py_DECREF(item);
            continue;
        }
        Py_CLEAR(slot->wait);
        PyObject *value = NULL;
        PyObject *coroutine = Py_NewRef(slot->coroutine); /* what it runs may take it away from its slot */
        PySendResult sent = PyIter_Send(coroutine, Py_None, &value);
        Py_DECREF(coroutine);
        int settled = slot_settle(slot, sent, value, finish, promote);
        Py_DECREF(item);
        if (settled < 0)
            return NULL;
        if ((count & 7) == 0 && monotonic_ns() - start > (count < enough ? time_max_ns : time_ns))
            break;
    }
    return PyLong_FromSsize_t(count);
}

static PyMethodDef functions[] = {
    {"run_slots", run_slots, METH_VARARGS,
     PyDoc_STR("run_slots(ready, limit, enough, time_ns, time_max_ns, finish, promote): resume ready slots; returns\n"
               "how many.\n\n"
               "At most `limit`, and after every eighth the pass ends if `time_max_ns` have passed, or `time_ns` if\n"
               "`enough` were resumed.\n"
               "finish(slot, result, error) is told of each end, promote(slot, awaited) of what is no Wait.")},
    {NULL, NULL, 0, NULL},
};

int add_waits(PyObject *module)
{
    return (queue_type = add_type(module, "Queue", &queue_spec, NULL)) == NULL ||
                   (worker_type = add_type(module, "WorkerHot", &worker_spec, NULL)) == NULL ||
                   (wait_type = add_type(module, "WaitHot", &wait_spec, NULL)) == NULL ||
                   (mailbox_type = add_type(module, "MailboxHot", &mailbox_spec, wait_type)) == NULL ||
                   (slot_type = add_type(module, "SlotHot", &slot_spec, NULL)) == NULL ||
                   PyModule_AddFunctions(module, functions) < 0
               ? -1
               : 0;
}
