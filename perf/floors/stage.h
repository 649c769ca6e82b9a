/* Measures the parties that a floor has started, and ends them. */
#ifndef PARTYWIRE_FLOORS_STAGE_H
#define PARTYWIRE_FLOORS_STAGE_H

#include "play.h"

/* What is to be played, from the command line: WORKLOAD PARTIES SESSIONS SIZE SECONDS SPIN_US RING_KIB DEADLINE_S PARENT_PID */
struct script {
    enum kind kind;
    unsigned parties;
    unsigned sessions;
    size_t size;
    double seconds;
    double spin_us;   /* how long to poll before sleeping; 0 = not at all */
    size_t ring_size; /* bytes; a power of two, at least a page */
};

/* Read the command line and begin(). */
struct script read_script(int count, char **arguments);

/* The TCP connections of all parties: party i sends on out[i] and receives on in[i]. Two parties share one connection,
 * so that out[i] == in[i]; more are a ring. Non-blocking. */
struct wires {
    int out[PARTIES_MAX];
    int in[PARTIES_MAX];
};

struct wires connect_parties(unsigned parties);

/* Close all of them that party `party` does not use. */
void keep_wires_of(const struct wires *wires, unsigned parties, unsigned party);

/* Let the parties warm up, count for script->seconds, end them, print one line of JSON. `owner[i]` is the party of the
 * i-th started process. */
void measure(const struct script *script, struct board *board, const pid_t *pids, const unsigned *owner, int count);

#endif
