#define _GNU_SOURCE
#include "play.h"

#include <string.h>
#include <unistd.h>

#include "process.h"

/* Sending. */

static void queue_frame(struct play *play, uint32_t session)
{
    unsigned at = play->queue_head + play->queued;
    play->queue[at < play->sessions ? at : at - play->sessions] = session;
    play->queued++;
    if (session < SAMPLED_SESSIONS && play->party == 0)
        play->started_ns[session] = now_ns();
}

/* The first queued frame is taken whole. */
static void drop_frame(struct play *play)
{
    uint32_t session = play->queue[play->queue_head];
    play->queue_head = play->queue_head + 1 < play->sessions ? play->queue_head + 1 : 0;
    play->queued--;
    play->frame_done = 0;
    if (play->kind == ONEWAY && play->party == 0 && --play->balance[session] > 0)
        queue_frame(play, session);
}

static void put_header(const struct play *play, uint8_t *out, uint32_t session)
{
    uint32_t length = (uint32_t)play->out_size;
    memcpy(out, &session, 4);
    out[4] = DESCRIPTOR_BYTES;
    memcpy(out + 5, &length, 4);
}

/* Copy a part of the first queued frame, from frame_done on. */
static size_t put_part(struct play *play, uint8_t *out, size_t room)
{
    size_t done = play->frame_done, size;
    if (done < HEADER_SIZE) {
        uint8_t header[HEADER_SIZE];
        put_header(play, header, play->queue[play->queue_head]);
        size = HEADER_SIZE - done < room ? HEADER_SIZE - done : room;
        memcpy(out, header + done, size);
    } else {
        size_t rest = HEADER_SIZE + play->out_size - done;
        size = rest < room ? rest : room;
        memcpy(out, play->payload + done - HEADER_SIZE, size);
    }
    play->frame_done += size;
    return size;
}

size_t play_write(struct play *play, uint8_t *out, size_t room)
{
    size_t frame_size = HEADER_SIZE + play->out_size, size = 0;
    while (play->queued > 0 && size < room) {
        if (play->frame_done == 0 && room - size >= frame_size) {
            put_header(play, out + size, play->queue[play->queue_head]);
            memcpy(out + size + HEADER_SIZE, play->payload, play->out_size);
            size += frame_size;
            drop_frame(play);
        } else {
            size += put_part(play, out + size, room - size);
            if (play->frame_done == frame_size)
                drop_frame(play);
        }
    }
    return size;
}

int play_gather(struct play *play, struct iovec *parts, int count_max)
{
    size_t done = play->frame_done;
    unsigned at = play->queue_head;
    int count = 0;
    for (unsigned n = 0; n < play->queued && n < GATHERED_FRAMES_MAX && count + 2 <= count_max; n++) {
        if (done < HEADER_SIZE) {
            put_header(play, play->gathered[n], play->queue[at]);
            parts[count++] = (struct iovec){play->gathered[n] + done, HEADER_SIZE - done};
            done = HEADER_SIZE;
        }
        done -= HEADER_SIZE;
        parts[count++] = (struct iovec){play->payload + done, play->out_size - done};
        done = 0;
        at = at + 1 < play->sessions ? at + 1 : 0;
    }
    return count;
}

void play_sent(struct play *play, size_t size)
{
    while (size > 0) {
        size_t rest = HEADER_SIZE + play->out_size - play->frame_done;
        if (size < rest) {
            play->frame_done += size;
            return;
        }
        size -= rest;
        drop_frame(play);
    }
}

/* Receiving. */

static void record_latency(struct play *play, uint32_t session)
{
    struct samples *samples = &play->board->samples[session];
    uint64_t count = atomic_load_explicit(&samples->count, memory_order_relaxed);
    samples->ns[count % SAMPLES_MAX] = now_ns() - play->started_ns[session];
    /* Release: whoever sees this count sees the samples before it. */
    atomic_store_explicit(&samples->count, count + 1, memory_order_release);
}

/* A session has its message. */
static void take_message(struct play *play, uint32_t session)
{
    play->messages++;
    if (play->kind != ONEWAY) {
        if (session < SAMPLED_SESSIONS && play->party == 0 &&
            atomic_load_explicit(&play->board->is_recording, memory_order_relaxed))
            record_latency(play, session);
        queue_frame(play, session);
    } else if (play->party == 0) {
        play->balance[session] += play->window;
        if (play->balance[session] == play->window)
            queue_frame(play, session);
    } else if (++play->balance[session] == play->window) {
        play->balance[session] = 0;
        queue_frame(play, session);
    }
}

static uint32_t read_header(const struct play *play, const uint8_t *header)
{
    uint32_t session, length;
    memcpy(&session, header, 4);
    memcpy(&length, header + 5, 4);
    if (session >= play->sessions || header[4] != DESCRIPTOR_BYTES || length != play->in_size)
        fail("a frame of session %u with %u bytes arrived where %zu were sent", session, length, play->in_size);
    return session;
}

/* Note what has arrived; the board is told once for each call and not for each message. */
static void tell_board(struct play *play)
{
    atomic_store_explicit(&play->board->parties[play->party].messages, play->messages, memory_order_relaxed);
}

static void add_to_frame(struct play *play, size_t size)
{
    play->frame_got += size;
    if (play->frame_got == HEADER_SIZE)
        play->session = read_header(play, play->header);
    if (play->frame_got == HEADER_SIZE + play->in_size) {
        play->frame_got = 0;
        take_message(play, play->session);
    }
}

void play_feed(struct play *play, const uint8_t *data, size_t size)
{
    size_t frame_size = HEADER_SIZE + play->in_size;
    while (size > 0) {
        if (play->frame_got == 0 && size >= frame_size) {
            uint32_t session = read_header(play, data);
            memcpy(play->message, data + HEADER_SIZE, play->in_size);
            take_message(play, session);
            data += frame_size;
            size -= frame_size;
            continue;
        }
        size_t got = play->frame_got, part;
        if (got < HEADER_SIZE) {
            part = HEADER_SIZE - got < size ? HEADER_SIZE - got : size;
            memcpy(play->header + got, data, part);
        } else {
            part = frame_size - got < size ? frame_size - got : size;
            memcpy(play->message + got - HEADER_SIZE, data, part);
        }
        add_to_frame(play, part);
        data += part;
        size -= part;
    }
    tell_board(play);
}

size_t play_rest(const struct play *play, uint8_t **where)
{
    if (play->frame_got < HEADER_SIZE)
        return 0;
    *where = play->message + play->frame_got - HEADER_SIZE;
    return HEADER_SIZE + play->in_size - play->frame_got;
}

void play_fed(struct play *play, size_t size)
{
    add_to_frame(play, size);
    tell_board(play);
}

void play_peer_left(const struct play *play)
{
    if (!atomic_load(&play->board->is_over))
        fail("the peer closed its connection");
    pause(); /* we are being ended */
    _exit(0);
}

/* Beginning. */

void play_begin(struct play *play, struct board *board, enum kind kind, unsigned party, unsigned sessions, size_t size)
{
    size_t answer = kind == ONEWAY ? 1 : size;
    *play = (struct play){.board = board, .kind = kind, .party = party, .sessions = sessions};
    play->out_size = party == 0 ? size : answer;
    play->in_size = party == 0 ? answer : size;
    play->payload = own_memory(size);
    play->message = own_memory(size);
    play->queue = own_memory(sessions * sizeof *play->queue);
    play->balance = own_memory(sessions * sizeof *play->balance);
    play->window = size < ONEWAY_WINDOW_SIZE ? (uint32_t)(ONEWAY_WINDOW_SIZE / size) : 1;
    for (uint32_t session = 0; session < sessions; session++) {
        if (kind == ONEWAY && party == 0)
            play->balance[session] = 2 * play->window;
        if (kind == RING || party == 0)
            queue_frame(play, session);
    }
}
