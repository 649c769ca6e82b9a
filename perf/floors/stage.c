#define _GNU_SOURCE
#include "stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "tcp.h"

/* Part of `seconds` that is played before the clock starts, so that windows, caches and queues are as they stay. */
static const double WARM_UP_PART = 0.2;

struct script read_script(int count, char **arguments)
{
    static const char *const kinds[] = {[RING] = "ring", [PINGPONG] = "pingpong", [ONEWAY] = "oneway"};
    struct script script = {0};
    if (count != 10)
        fail("usage: %s WORKLOAD PARTIES SESSIONS SIZE SECONDS SPIN_US RING_KIB DEADLINE_S PARENT_PID", arguments[0]);
    while (script.kind < 3 && strcmp(kinds[script.kind], arguments[1]) != 0)
        script.kind++;
    long parties = atol(arguments[2]), sessions = atol(arguments[3]), size = atol(arguments[4]);
    script.seconds = atof(arguments[5]);
    script.spin_us = atof(arguments[6]);
    script.ring_size = (size_t)atol(arguments[7]) << 10;
    if (script.kind == 3 || parties < 2 || parties > PARTIES_MAX || (script.kind != RING && parties != 2) ||
        sessions < 1 || sessions > SESSIONS_MAX || size < 1 || size > SIZE_MAX_BYTES || script.seconds <= 0 ||
        script.ring_size < 4096 || (script.ring_size & (script.ring_size - 1)) != 0)
        fail("cannot play %s with %ld parties, %ld sessions and %ld bytes", arguments[1], parties, sessions, size);
    script.parties = (unsigned)parties;
    script.sessions = (unsigned)sessions;
    script.size = (size_t)size;
    begin((pid_t)atol(arguments[9]), atof(arguments[8]));
    return script;
}

struct wires connect_parties(unsigned parties)
{
    struct wires wires;
    unsigned connections = parties == 2 ? 1 : parties;
    for (unsigned party = 0; party < connections; party++) {
        unsigned next = (party + 1) % parties;
        int ends[2];
        connect_pair(ends);
        set_nonblocking(ends[0]);
        set_nonblocking(ends[1]);
        wires.out[party] = ends[0];
        wires.in[next] = ends[1];
    }
    if (parties == 2) {
        wires.in[0] = wires.out[0];
        wires.out[1] = wires.in[1];
    }
    return wires;
}

void keep_wires_of(const struct wires *wires, unsigned parties, unsigned party)
{
    for (unsigned other = 0; other < parties; other++) {
        if (other == party)
            continue;
        close(wires->out[other]);
        if (wires->in[other] != wires->out[other])
            close(wires->in[other]);
    }
}

/* What all processes have done up to one moment. */
struct tally {
    uint64_t ns;
    double units;
    double cpu_s[PARTIES_MAX];
    uint64_t switches;
};

/* Units are counted where they end: in a ring at all parties alike, so their mean is taken. */
static double count_units(const struct script *script, struct board *board)
{
    uint64_t messages = 0;
    if (script->kind != RING)
        return (double)atomic_load(&board->parties[script->kind == PINGPONG ? 0 : 1].messages);
    for (unsigned party = 0; party < script->parties; party++)
        messages += atomic_load(&board->parties[party].messages);
    return (double)messages / script->parties;
}

static struct tally take_tally(const struct script *script, struct board *board, const pid_t *pids,
                               const unsigned *owner, int count)
{
    struct tally tally = {0};
    for (int at = 0; at < count; at++) {
        tally.cpu_s[owner[at]] += cpu_s(pids[at]);
        tally.switches += context_switches(pids[at]);
    }
    tally.units = count_units(script, board);
    tally.ns = now_ns();
    return tally;
}

static void print_latencies(struct board *board)
{
    const char *comma = "";
    printf("[");
    for (int session = 0; session < SAMPLED_SESSIONS; session++) {
        struct samples *samples = &board->samples[session];
        uint64_t count = atomic_load_explicit(&samples->count, memory_order_acquire);
        for (uint64_t at = 0; at < count && at < SAMPLES_MAX; at++, comma = ",")
            printf("%s%llu", comma, (unsigned long long)samples->ns[at]);
    }
    printf("]");
}

void measure(const struct script *script, struct board *board, const pid_t *pids, const unsigned *owner, int count)
{
    while (count_units(script, board) < 1)
        sleep_beside_children(0.001); /* the deadline ends a floor that never moves */
    sleep_beside_children(script->seconds * WARM_UP_PART);

    atomic_store(&board->is_recording, 1);
    struct tally first = take_tally(script, board, pids, owner, count);
    sleep_beside_children(script->seconds);
    struct tally last = take_tally(script, board, pids, owner, count);
    /* On a machine so busy that nothing moved meanwhile the run goes on until there is something to tell. */
    while (last.units - first.units < 1 || (script->kind != ONEWAY && board->samples[0].count == 0)) {
        sleep_beside_children(0.001);
        last = take_tally(script, board, pids, owner, count);
    }
    atomic_store(&board->is_recording, 0);
    atomic_store(&board->is_over, 1);
    end_children();

    printf("{\"units\":%.0f,\"elapsed_s\":%.9f,\"context_switches\":%llu,\"cpu_s_per_party\":[",
           last.units - first.units, (double)(last.ns - first.ns) / 1e9,
           (unsigned long long)(last.switches - first.switches));
    for (unsigned party = 0; party < script->parties; party++)
        printf("%s%.6f", party > 0 ? "," : "", last.cpu_s[party] - first.cpu_s[party]);
    printf("],\"latencies_ns\":");
    print_latencies(board);
    printf("}\n");
}
