/* The workers' part of partywire._core. */

#include "../../shm/core/ring.h"

int add_workers(PyObject *module)
{
    (void)module;
    return 0;
}
