/* Receiving from a socket into a ring, as pump.c does it, for whoever has the lane behind the ring at hand as well. */

#ifndef PARTYWIRE_PUMP_H
#define PARTYWIRE_PUMP_H

#include "../../shm/core/ring.h"

#include <sys/types.h>

/* How a receive ended; the negative of an errno stands for a broken socket. */
enum {
    DRAINED = 0, /* the socket has nothing more */
    MORE = 1,    /* it may have more, but others have their turn first */
    FULL = 2,    /* the ring has no room */
    ENDED = 3,   /* end of file */
};

typedef struct {
    int fd;
    uint32_t connection;
    uint32_t epoch;
    Py_ssize_t size_max; /* of one receive */
    Py_ssize_t size_min; /* room below this is not worth a system call */
    int batch;           /* receives of one call */
} ReceiveOrder;

/* From args[1] to args[6]: fd, connection, epoch, size_max, size_min, batch. 0, or -1 with an exception set. */
int read_receive_order(PyObject *const *args, ReceiveOrder *order);

/* What a `recv` that asked for so many bytes means; to be called before errno changes. */
int outcome_of(ssize_t count, size_t asked);

/* Receive into one claim. Bytes taken; `outcome` says what follows. -1: exception set. */
Py_ssize_t receive_once(PyObject *writer, const ReceiveOrder *order, int *outcome);

/* Take the body away from a Filler of which bytes are missing. 0, or -1 with an exception set. */
int filler_lend(PyObject *filler, PyObject **body, char **data, Py_ssize_t *size, Py_ssize_t *filled);

#endif
