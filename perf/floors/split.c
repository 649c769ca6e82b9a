/* Floor: the engine's shape in C. Per party one compute process, and one I/O process for each peer link, joined by rings
 * and doorbells. The yardstick for "distance to C".
 *
 *     compute -> ring -> I/O -> TCP -> I/O -> ring -> compute
 *
 * The I/O process never looks at what it moves: it sends straight from one ring and receives straight into the other.
 * Whoever has nothing to do sleeps at its doorbell, at once or after having polled for SPIN_US with sched_yield between.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "play.h"
#include "process.h"
#include "ring.h"
#include "stage.h"

/* One link of a party: its I/O process, and the rings between that and the compute process. */
struct link {
    int fd;
    struct ring tx, rx; /* named by the compute process: it writes tx and reads rx */
    struct doorbell bell;
};

struct party {
    struct script script;
    struct board *board;
    struct wires wires;
    unsigned index;
    struct doorbell bell; /* of the compute process */
    struct link links[2]; /* to the next and to the previous party; with two parties only the first */
    struct play play;
};

/* Polling before sleeping. */

struct patience {
    uint64_t spin_ns;
    uint64_t idle_since_ns; /* 0 while there is work */
};

/* Whether to look again instead of going to sleep. Called after a turn without work. */
static bool spins(struct patience *patience)
{
    if (patience->spin_ns == 0)
        return false;
    uint64_t now = now_ns();
    if (patience->idle_since_ns == 0)
        patience->idle_since_ns = now;
    if (now - patience->idle_since_ns >= patience->spin_ns)
        return false;
    sched_yield();
    return true;
}

/* The compute process. */

static bool take_slice(struct play *play, struct link *link)
{
    size_t size = ring_filled(&link->rx);
    if (size == 0)
        return false;
    if (size > RING_SLICE_SIZE)
        size = RING_SLICE_SIZE;
    play_feed(play, ring_first(&link->rx), size);
    ring_release(&link->rx, size, &link->bell);
    return true;
}

static bool give_slice(struct play *play, struct link *link)
{
    if (play->queued == 0)
        return false;
    size_t room = ring_room(&link->tx);
    size_t size = play_write(play, ring_end(&link->tx), room < RING_SLICE_SIZE ? room : RING_SLICE_SIZE);
    if (size > 0)
        ring_publish(&link->tx, size, &link->bell);
    return size > 0;
}

static void sleep_at_bell(struct party *party, struct link *out, struct link *in)
{
    uint64_t bells;
    arm(&party->bell);
    if (party->play.queued > 0)
        ring_want_space(&out->tx);
    atomic_thread_fence(memory_order_seq_cst);
    if (ring_filled(&in->rx) == 0 && (party->play.queued == 0 || !ring_is_roomy(&out->tx)))
        if (read(party->bell.eventfd, &bells, sizeof bells) < 0 && errno != EINTR)
            fail("an eventfd cannot be read: %s", strerror(errno));
    disarm(&party->bell);
}

static void run_compute(void *argument)
{
    struct party *party = argument;
    struct link *out = &party->links[0], *in = &party->links[party->script.parties == 2 ? 0 : 1];
    struct patience patience = {.spin_ns = (uint64_t)(party->script.spin_us * 1000)};
    keep_wires_of(&party->wires, party->script.parties, PARTIES_MAX);
    play_begin(&party->play, party->board, party->script.kind, party->index, party->script.sessions,
               party->script.size);
    for (;;) {
        bool worked = take_slice(&party->play, in);
        worked |= give_slice(&party->play, out);
        if (worked) {
            patience.idle_since_ns = 0;
        } else if (!spins(&patience)) {
            sleep_at_bell(party, out, in);
            patience.idle_since_ns = 0;
        }
    }
}

/* An I/O process. */

struct pump {
    struct party *party;
    struct link *link;
    bool is_readable, is_writable; /* as far as the edge-triggered set has told */
};

static bool pump_out(struct pump *pump)
{
    struct link *link = pump->link;
    size_t size = pump->is_writable ? ring_filled(&link->tx) : 0;
    if (size == 0)
        return false;
    if (size > RING_SLICE_SIZE)
        size = RING_SLICE_SIZE;
    ssize_t sent = send(link->fd, ring_first(&link->tx), size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        play_peer_left(&pump->party->play);
    if (sent < (ssize_t)size)
        pump->is_writable = false;
    if (sent > 0)
        ring_release(&link->tx, (size_t)sent, &pump->party->bell);
    return true;
}

static bool pump_in(struct pump *pump)
{
    struct link *link = pump->link;
    size_t room = pump->is_readable ? ring_room(&link->rx) : 0;
    if (room == 0)
        return false;
    if (room > RING_SLICE_SIZE)
        room = RING_SLICE_SIZE;
    ssize_t got = recv(link->fd, ring_end(&link->rx), room, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        play_peer_left(&pump->party->play);
    if (got < (ssize_t)room)
        pump->is_readable = false; /* a short read has emptied the socket */
    if (got > 0)
        ring_publish(&link->rx, (size_t)got, &pump->party->bell);
    return true;
}

/* Announce the sleep and look once more; whether there is really nothing to do. */
static bool may_sleep(struct pump *pump)
{
    struct link *link = pump->link;
    arm(&link->bell);
    if (pump->is_readable)
        ring_want_space(&link->rx);
    atomic_thread_fence(memory_order_seq_cst);
    return !(pump->is_writable && ring_filled(&link->tx) > 0) && !(pump->is_readable && ring_is_roomy(&link->rx));
}

static int watch_link(const struct link *link)
{
    struct epoll_event socket_event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = link->fd};
    /* Edge-triggered too: every bell is an edge, so nobody has to read the eventfd. */
    struct epoll_event bell_event = {.events = EPOLLIN | EPOLLET, .data.fd = link->bell.eventfd};
    int set = epoll_create1(EPOLL_CLOEXEC);
    if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, link->fd, &socket_event) != 0 ||
        epoll_ctl(set, EPOLL_CTL_ADD, link->bell.eventfd, &bell_event) != 0)
        fail("epoll refuses a link: %s", strerror(errno));
    return set;
}

static void run_io(void *argument)
{
    struct pump *pump = argument;
    struct link *link = pump->link;
    struct patience patience = {.spin_ns = (uint64_t)(pump->party->script.spin_us * 1000)};
    for (unsigned party = 0; party < pump->party->script.parties; party++) {
        const struct wires *wires = &pump->party->wires;
        if (wires->out[party] != link->fd)
            close(wires->out[party]);
        if (wires->in[party] != link->fd && wires->in[party] != wires->out[party])
            close(wires->in[party]);
    }
    pump->party->play.board = pump->party->board;
    int set = watch_link(link);
    for (;;) {
        int wait_ms = 0;
        bool worked = pump_out(pump);
        worked |= pump_in(pump);
        if (worked) {
            patience.idle_since_ns = 0;
        } else if (!spins(&patience) && may_sleep(pump)) {
            wait_ms = -1;
        }
        struct epoll_event events[2];
        int count = epoll_wait(set, events, 2, wait_ms);
        if (wait_ms != 0)
            patience.idle_since_ns = 0;
        disarm(&link->bell);
        for (int at = 0; at < count; at++) {
            if (events[at].data.fd != link->fd)
                continue;
            if (events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                pump->is_readable = true;
            if (events[at].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
                pump->is_writable = true;
        }
    }
}

int main(int count, char **arguments)
{
    struct script script = read_script(count, arguments);
    struct board *board = share_memory(sizeof *board);
    struct wires wires = connect_parties(script.parties);
    static struct party parties[PARTIES_MAX];
    static struct pump pumps[2 * PARTIES_MAX];
    pid_t pids[3 * PARTIES_MAX];
    unsigned owner[3 * PARTIES_MAX];
    int started = 0;
    for (unsigned index = 0; index < script.parties; index++) {
        struct party *party = &parties[index];
        int link_count = script.parties == 2 ? 1 : 2;
        *party = (struct party){.script = script, .board = board, .wires = wires, .index = index};
        party->bell = make_doorbell();
        for (int at = 0; at < link_count; at++) {
            int fd = at == 0 ? wires.out[index] : wires.in[index];
            party->links[at] = (struct link){.fd = fd, .bell = make_doorbell()};
            party->links[at].tx = make_ring(script.ring_size);
            party->links[at].rx = make_ring(script.ring_size);
        }
        for (int at = 0; at < link_count; at++) {
            struct pump *pump = &pumps[2 * index + (unsigned)at];
            *pump = (struct pump){party, &party->links[at], true, true};
            owner[started] = index;
            pids[started++] = start_child("an I/O process", run_io, pump);
        }
        owner[started] = index;
        pids[started++] = start_child("a compute process", run_compute, party);
    }
    keep_wires_of(&wires, script.parties, PARTIES_MAX);
    measure(&script, board, pids, owner, started);
    return 0;
}
