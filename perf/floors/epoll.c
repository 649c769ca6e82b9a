/* Floor: one process per party, non-blocking TCP, one epoll set, one hand-written state machine for all sessions.
 *
 * A turn is: wait, receive once, take every whole message, send everything that is queued. So a batch costs one system
 * call each way however many sessions are in it. Nearly the least that rounds over TCP can cost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "play.h"
#include "process.h"
#include "stage.h"

/* Both take what 256 sessions send in a turn with 4 KiB each: with a quarter of it these rounds take twice as long. */
enum { RECEIVE_SIZE = 1 << 20, SEND_SIZE = 1 << 20 };

struct party {
    struct script script;
    struct board *board;
    struct wires wires;
    unsigned index;
    struct play play;
    int out, in;
    bool is_readable, is_writable; /* as far as the edge-triggered set has told */
    uint8_t *received;
    uint8_t *joined;               /* frames being sent; between joined_done and joined_size they are still ours */
    size_t joined_done, joined_size;
};

static size_t send_some(struct party *party, struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    size_t wanted = 0;
    for (int at = 0; at < count; at++)
        wanted += parts[at].iov_len;
    ssize_t sent = sendmsg(party->out, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        play_peer_left(&party->play);
    if (sent < (ssize_t)wanted)
        party->is_writable = false;
    return sent < 0 ? 0 : (size_t)sent;
}

static void send_joined(struct party *party)
{
    while (party->is_writable) {
        if (party->joined_done == party->joined_size) {
            party->joined_done = 0;
            party->joined_size = play_write(&party->play, party->joined, SEND_SIZE);
            if (party->joined_size == 0)
                return;
        }
        struct iovec part = {party->joined + party->joined_done, party->joined_size - party->joined_done};
        party->joined_done += send_some(party, &part, 1);
    }
}

static void send_gathered(struct party *party)
{
    while (party->is_writable) {
        struct iovec parts[2 * GATHERED_FRAMES_MAX];
        int count = play_gather(&party->play, parts, 2 * GATHERED_FRAMES_MAX);
        if (count == 0)
            return;
        play_sent(&party->play, send_some(party, parts, count));
    }
}

/* Receive once: the rest of a large payload goes where it belongs, everything else into the buffer. */
static void receive(struct party *party)
{
    struct iovec parts[2];
    int count = 0;
    size_t rest = play_rest(&party->play, (uint8_t **)&parts[0].iov_base);
    if (rest > 0)
        parts[count++].iov_len = rest;
    /* After a large payload only a header is read, so that the next payload is not copied twice either. */
    size_t room = party->play.in_size > JOINED_SIZE_MAX ? HEADER_SIZE : RECEIVE_SIZE;
    parts[count++] = (struct iovec){party->received, room};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ssize_t got = recvmsg(party->in, &message, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        play_peer_left(&party->play);
    if (got < (ssize_t)(rest + room))
        party->is_readable = false; /* a short read has emptied the socket */
    if (got <= 0)
        return;
    size_t size = (size_t)got, direct = size < rest ? size : rest;
    if (direct > 0)
        play_fed(&party->play, direct);
    if (size > direct)
        play_feed(&party->play, party->received, size - direct);
}

static void watch(int set, int fd, uint32_t what)
{
    struct epoll_event event = {.events = what | EPOLLET, .data.u32 = what};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("epoll refuses a socket: %s", strerror(errno));
}

static void run_party(void *argument)
{
    struct party *party = argument;
    struct epoll_event events[2];
    keep_wires_of(&party->wires, party->script.parties, party->index);
    party->out = party->wires.out[party->index];
    party->in = party->wires.in[party->index];
    party->received = own_memory(RECEIVE_SIZE);
    party->joined = own_memory(SEND_SIZE);
    party->is_readable = party->is_writable = true;
    play_begin(&party->play, party->board, party->script.kind, party->index, party->script.sessions,
               party->script.size);

    int set = epoll_create1(EPOLL_CLOEXEC);
    if (set < 0)
        fail("no epoll: %s", strerror(errno));
    if (party->in == party->out) {
        watch(set, party->in, EPOLLIN | EPOLLOUT);
    } else {
        watch(set, party->in, EPOLLIN);
        watch(set, party->out, EPOLLOUT);
    }
    for (;;) {
        if (party->is_readable)
            receive(party);
        if (party->play.out_size > JOINED_SIZE_MAX)
            send_gathered(party);
        else
            send_joined(party);
        if (party->is_readable)
            continue;
        int count = epoll_wait(set, events, 2, -1);
        for (int at = 0; at < count; at++) {
            uint32_t seen = events[at].events, what = events[at].data.u32;
            if (what & EPOLLIN && seen & (EPOLLIN | EPOLLHUP | EPOLLERR))
                party->is_readable = true;
            if (what & EPOLLOUT && seen & (EPOLLOUT | EPOLLHUP | EPOLLERR))
                party->is_writable = true;
        }
    }
}

int main(int count, char **arguments)
{
    static const char *const roles[] = {"a party's process"};
    struct script script = read_script(count, arguments);
    struct board *board = share_memory(sizeof *board);
    struct wires wires = connect_parties(script.parties);
    static struct party parties[PARTIES_MAX];
    pid_t pids[PARTIES_MAX];
    unsigned owner[PARTIES_MAX];
    for (unsigned index = 0; index < script.parties; index++) {
        parties[index] = (struct party){.script = script, .board = board, .wires = wires, .index = index};
        pids[index] = start_child(roles[0], run_party, &parties[index]);
        owner[index] = index;
    }
    keep_wires_of(&wires, script.parties, PARTIES_MAX);
    measure(&script, board, pids, owner, (int)script.parties);
    return 0;
}
