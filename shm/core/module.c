/* The extension module partywire._core: the types and functions of all three layers, added by each of them. */

#include "ring.h"

/* The types are process-wide, so that C code can ask for them without a module at hand. A second interpreter would
   replace them under the first one's objects. */
static int is_loaded;

static int execute(PyObject *module)
{
    if (is_loaded) {
        PyErr_SetString(PyExc_ImportError, "partywire._core can be loaded once in a process");
        return -1;
    }
    if (add_shm(module) < 0 || add_engine(module) < 0 || add_workers(module) < 0)
        return -1;
    is_loaded = 1;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "partywire._core",
    .m_doc = "The compiled core. Optional: shm/compiled.py says whether it is used.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
