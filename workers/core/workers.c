/* The workers' part of partywire._core. */

#include "worker.h"

int add_workers(PyObject *module)
{
    return add_waits(module) < 0 || add_lanes(module) < 0 || add_sessions(module) < 0 ? -1 : 0;
}
