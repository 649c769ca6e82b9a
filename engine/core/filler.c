/* Filler: a body that arrives in pieces, put together in the memory that it is handed over in. Twin of filler.py. */

#include "pump.h"

#include <string.h>
#include <sys/socket.h>

int add_filler(PyObject *module);

typedef struct {
    PyObject_HEAD
    PyObject *body; /* bytes or bytearray of `size` bytes that nobody else has seen; NULL once taken */
    char *data;
    Py_ssize_t size, filled;
} Filler;

static PyTypeObject *filler_type;

static int filler_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Filler *filler = (Filler *)self;
    Py_ssize_t size;
    int is_writable;
    static char *names[] = {"size", "is_writable", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "np", names, &size, &is_writable))
        return -1;
    if (size < 0 || filler->body != NULL) {
        PyErr_SetString(PyExc_ValueError, "a filler is made once, for a size that is not negative");
        return -1;
    }
    /* Not zeroed: every byte is written before anybody reads one. */
    filler->body = is_writable ? PyByteArray_FromStringAndSize(NULL, size) : PyBytes_FromStringAndSize(NULL, size);
    if (filler->body == NULL)
        return -1;
    filler->data = is_writable ? PyByteArray_AsString(filler->body) : PyBytes_AsString(filler->body);
    filler->size = size;
    filler->filled = 0;
    return 0;
}

/* put(piece): append a piece; ValueError when it is more than is missing, and then nothing was put. */
static PyObject *filler_put(PyObject *self, PyObject *piece)
{
    Filler *filler = (Filler *)self;
    Py_buffer view;
    if (PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int fits = filler->body != NULL && view.len <= filler->size - filler->filled;
    if (fits) {
        memcpy(filler->data + filler->filled, view.buf, (size_t)view.len);
        filler->filled += view.len;
    }
    PyBuffer_Release(&view);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a piece is longer than what is missing");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* receive(fd, size) -> (bytes, outcome): append what a socket has, up to `size` bytes, which are missing. */
static PyObject *filler_receive(PyObject *self, PyObject *args)
{
    Filler *filler = (Filler *)self;
    int fd;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "in", &fd, &size))
        return NULL;
    if (filler->body == NULL || size <= 0 || size > filler->size - filler->filled) {
        PyErr_SetString(PyExc_ValueError, "no byte is wanted, or more than are missing");
        return NULL;
    }
    ssize_t count = recv(fd, filler->data + filler->filled, (size_t)size, MSG_DONTWAIT);
    int outcome = outcome_of(count, (size_t)size);
    if (count < 0)
        count = 0;
    filler->filled += count;
    return Py_BuildValue("(ni)", (Py_ssize_t)count, outcome);
}

/* take() -> the whole body; ValueError while bytes are missing. */
static PyObject *filler_take(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Filler *filler = (Filler *)self;
    if (filler->body == NULL || filler->filled != filler->size) {
        PyErr_SetString(PyExc_ValueError, "a body is taken once, when it is whole");
        return NULL;
    }
    PyObject *body = filler->body;
    filler->body = NULL;
    filler->data = NULL;
    return body;
}

int filler_lend(PyObject *object, PyObject **body, char **data, Py_ssize_t *size, Py_ssize_t *filled)
{
    Filler *filler = (Filler *)object;
    if (!PyObject_TypeCheck(object, filler_type)) {
        PyErr_SetString(PyExc_TypeError, "only a compiled filler lends its body");
        return -1;
    }
    if (filler->body == NULL || filler->filled == filler->size) {
        PyErr_SetString(PyExc_ValueError, "a body is lent while bytes of it are missing");
        return -1;
    }
    *body = filler->body;
    *data = filler->data;
    *size = filler->size;
    *filled = filler->filled;
    filler->body = NULL;
    filler->data = NULL;
    return 0;
}

static PyObject *filler_filled(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(((Filler *)self)->filled);
}

static void filler_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Filler *)self)->body);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef filler_methods[] = {
    {"put", filler_put, METH_O, PyDoc_STR("put($self, piece, /)\n--\n\nAppend a piece.")},
    {"receive", filler_receive, METH_VARARGS,
     PyDoc_STR("receive($self, fd, size, /)\n--\n\nAppend what a socket has. Returns (bytes, outcome).")},
    {"take", filler_take, METH_NOARGS, PyDoc_STR("take($self, /)\n--\n\nHand the whole body over.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef filler_getters[] = {
    {"filled", filler_filled, NULL, PyDoc_STR("Bytes that are there."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot filler_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("See engine/filler.py.")},
    {Py_tp_init, filler_init},
    {Py_tp_methods, filler_methods},
    {Py_tp_getset, filler_getters},
    {Py_tp_dealloc, filler_dealloc},
    {0, NULL},
};

static PyType_Spec filler_spec = {
    .name = "partywire._core.Filler",
    .basicsize = sizeof(Filler),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = filler_slots,
};

int add_filler(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &filler_spec, NULL);
    if (type == NULL)
        return -1;
    filler_type = (PyTypeObject *)type;
    return PyModule_AddObjectRef(module, "Filler", type);
}
