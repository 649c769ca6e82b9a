/* What both ends of a ring share: the mapping, the ordering, and calls from C into their cold Python methods. */

#include "layout.h"

#include <stdarg.h>

/* The mapping. */

static int read_capacity(PyObject *segment, uint64_t *capacity)
{
    PyObject *value = PyObject_GetAttrString(segment, "capacity");
    if (value == NULL)
        return -1;
    int status = as_unsigned(value, "capacity", CAPACITY_MAX, capacity);
    Py_DECREF(value);
    if (status < 0)
        return -1;
    if (*capacity < CAPACITY_MIN || (*capacity & (*capacity - 1)) != 0) {
        PyErr_SetString(PyExc_ValueError, "a segment's capacity is no power of two in range");
        return -1;
    }
    return 0;
}

int mapping_hold(Mapping *mapping, PyObject *segment)
{
    uint64_t capacity;
    if (mapping->words != NULL) {
        PyErr_SetString(PyExc_TypeError, "an end of a ring is made once");
        return -1;
    }
    if (read_capacity(segment, &capacity) < 0)
        return -1;
    PyObject *map = PyObject_GetAttrString(segment, "_map");
    if (map == NULL)
        return -1;
    int status = PyObject_GetBuffer(map, &mapping->buffer, PyBUF_WRITABLE);
    Py_DECREF(map);
    if (status < 0)
        return -1;
    if ((uint64_t)mapping->buffer.len != HEADER_SIZE + capacity || (uintptr_t)mapping->buffer.buf % ALIGNMENT != 0) {
        PyBuffer_Release(&mapping->buffer);
        PyErr_SetString(PyExc_ValueError, "a segment's mapping is not as large as its capacity says");
        return -1;
    }
    mapping->words = mapping->buffer.buf;
    mapping->data = (unsigned char *)mapping->buffer.buf + HEADER_SIZE;
    mapping->capacity = capacity;
    return 0;
}

void mapping_drop(Mapping *mapping)
{
    if (mapping->words == NULL)
        return;
    mapping->words = NULL;
    mapping->data = NULL;
    PyBuffer_Release(&mapping->buffer);
}

/* The ordering. */

static PyObject *fence_function; /* partywire._core.fence, for as long as the process lives */

static PyObject *fence(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    (void)module;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    Py_RETURN_NONE;
}

static PyMethodDef fence_methods[] = {
    {"fence", fence, METH_NOARGS,
     PyDoc_STR("fence($module)\n--\n\nOrder every store before it with every load behind it, as all processes see it.")},
    {NULL, NULL, 0, NULL},
};

/* The attribute `name` of a fence if its attribute `pays` is true; else NULL without an exception. -1: exception set. */
static int read_duty(PyObject *fence_object, const char *pays, const char *name, PyObject **duty)
{
    *duty = NULL;
    PyObject *flag = PyObject_GetAttrString(fence_object, pays);
    if (flag == NULL)
        return -1;
    int is_due = PyObject_IsTrue(flag);
    Py_DECREF(flag);
    if (is_due <= 0)
        return is_due;
    *duty = PyObject_GetAttrString(fence_object, name);
    return *duty == NULL ? -1 : 0;
}

int ordering_init(Ordering *ordering, PyObject *fence_object)
{
    PyObject *waker, *observe;
    if (read_duty(fence_object, "waker_pays", "waker", &waker) < 0)
        return -1;
    if (read_duty(fence_object, "observer_pays", "observe", &observe) < 0) {
        Py_XDECREF(waker);
        return -1;
    }
    if (waker != NULL && waker == fence_function) {
        Py_INCREF(Py_None);
        Py_DECREF(waker);
        waker = Py_None;
    }
    Py_XDECREF(ordering->waker);
    Py_XDECREF(ordering->observe);
    ordering->waker = waker;
    ordering->observe = observe;
    return 0;
}

int ordering_call(PyObject *callable)
{
    PyObject *result = PyObject_CallNoArgs(callable);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Calls into Python. */

static int call_formatted(PyObject *self, const char *method, const char *format, va_list values)
{
    PyObject *arguments = Py_VaBuildValue(format, values);
    if (arguments == NULL)
        return -1;
    PyObject *callable = PyObject_GetAttrString(self, method);
    PyObject *result = callable == NULL ? NULL : PyObject_CallObject(callable, arguments);
    Py_XDECREF(callable);
    Py_DECREF(arguments);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int call_method(PyObject *self, const char *method, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int status = call_formatted(self, method, format, values);
    va_end(values);
    return status;
}

int refuse(PyObject *self, const char *method, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int status = call_formatted(self, method, format, values);
    va_end(values);
    if (status == 0)
        PyErr_Format(PyExc_SystemError, "%s did not raise", method);
    return -1;
}

/* Arguments. */

static int bind_keyword(PyObject *keyword, PyObject *value, const char *const *names, Py_ssize_t names_count,
                        Py_ssize_t positional, PyObject **values)
{
    for (Py_ssize_t i = 0; i < names_count; i++) {
        if (PyUnicode_CompareWithASCIIString(keyword, names[i]) != 0)
            continue;
        if (i < positional) {
            PyErr_Format(PyExc_TypeError, "argument '%s' is given twice", names[i]);
            return -1;
        }
        values[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "there is no argument '%U'", keyword);
    return -1;
}

int bind_arguments(PyObject *const *args, Py_ssize_t count, PyObject *keywords, const char *const *names,
                   Py_ssize_t names_count, Py_ssize_t required, PyObject **values)
{
    if (count > names_count) {
        PyErr_Format(PyExc_TypeError, "at most %zd arguments are allowed, not %zd", names_count, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        values[i] = args[i];
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_Size(keywords);
    for (Py_ssize_t i = 0; i < named; i++)
        if (bind_keyword(PyTuple_GetItem(keywords, i), args[count + i], names, names_count, count, values) < 0)
            return -1;
    for (Py_ssize_t i = 0; i < required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "argument '%s' is missing", names[i]);
            return -1;
        }
    }
    return 0;
}

int as_unsigned(PyObject *value, const char *name, uint64_t max, uint64_t *result)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s does not lie between 0 and %llu", name, (unsigned long long)max);
        return -1;
    }
    if (number > max) {
        PyErr_Format(PyExc_ValueError, "%s %llu does not lie between 0 and %llu", name, number,
                     (unsigned long long)max);
        return -1;
    }
    *result = number;
    return 0;
}

PyObject *slice_view(PyObject *view, uint64_t start, uint64_t size)
{
    PyObject *slice = NULL, *result = NULL;
    PyObject *first = PyLong_FromUnsignedLongLong(start);
    PyObject *stop = PyLong_FromUnsignedLongLong(start + size);
    if (first != NULL && stop != NULL && (slice = PySlice_New(first, stop, NULL)) != NULL)
        result = PyObject_GetItem(view, slice);
    Py_XDECREF(slice);
    Py_XDECREF(first);
    Py_XDECREF(stop);
    return result;
}

int add_shm(PyObject *module)
{
    if (PyModule_AddFunctions(module, fence_methods) < 0)
        return -1;
    fence_function = PyObject_GetAttrString(module, "fence");
    if (fence_function == NULL)
        return -1;
    return add_doorbell(module) < 0 || add_writer(module) < 0 || add_reader(module) < 0 ? -1 : 0;
}
