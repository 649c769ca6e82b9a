/* The sessions of one party as a hand-written state machine, and the board on which all parties write what they did.
 *
 * The machine turns received bytes into messages and messages into frames to send; how bytes come and go is the floor's
 * business. Workloads as in workloads.py:
 *
 *   ring      each party begins with one message per session; each message received sends the session's next one
 *   pingpong  the same, but only party 0 begins
 *   oneway    party 0 sends while it has credit; party 1 answers each window of messages with one byte
 *
 * Every message is copied once into memory of the session's own, as each library does it for its user. Payloads are sent
 * from one buffer per party.
 */
#ifndef PARTYWIRE_FLOORS_PLAY_H
#define PARTYWIRE_FLOORS_PLAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    PARTIES_MAX = 16,
    SESSIONS_MAX = 1024,
    SIZE_MAX_BYTES = 1 << 20,
    HEADER_SIZE = 9,          /* docs/wire.md: session u32, descriptor u8, length u32 */
    DESCRIPTOR_BYTES = 0x0C,
    SAMPLED_SESSIONS = 4,     /* as in contender.py */
    SAMPLES_MAX = 1 << 16,    /* of each sampled session; later ones replace the oldest */
    ONEWAY_WINDOW_SIZE = 4 << 20,
    GATHERED_FRAMES_MAX = 32,
    /* Up to this size frames are joined in one buffer, above it payloads are sent and received where they lie. */
    JOINED_SIZE_MAX = 16 << 10,
};

enum kind { RING, PINGPONG, ONEWAY };

struct samples {
    _Atomic uint64_t count; /* ever recorded; at most the last SAMPLES_MAX are there */
    uint64_t ns[SAMPLES_MAX];
};

/* Shared by all processes of a run. Each word has one writer. */
struct board {
    struct {
        _Alignas(64) _Atomic uint64_t messages; /* received by this party, all sessions together */
    } parties[PARTIES_MAX];
    _Alignas(64) _Atomic int is_recording;
    _Atomic int is_over; /* processes are being ended: a closed connection is no failure */
    struct samples samples[SAMPLED_SESSIONS]; /* written by party 0 */
};

struct play {
    struct board *board;
    enum kind kind;
    unsigned party;
    unsigned sessions;
    /* Sessions that have a frame to send, each at most once. */
    uint32_t *queue;
    unsigned queue_head;
    unsigned queued;
    size_t frame_done;  /* bytes of the first queued frame that are already taken */
    size_t out_size;    /* payload bytes of each frame we send */
    uint8_t *payload;
    uint8_t gathered[GATHERED_FRAMES_MAX][HEADER_SIZE];
    /* The frame being received. */
    size_t in_size;     /* payload bytes of each frame we get */
    size_t frame_got;   /* bytes of it that have come */
    uint8_t header[HEADER_SIZE];
    uint32_t session;   /* from the header, once it is complete */
    uint8_t *message;
    uint64_t messages;
    /* oneway: messages that a session may still send, or has received since its last answer */
    uint32_t *balance;
    uint32_t window;
    uint64_t started_ns[SAMPLED_SESSIONS];
};

/* Make the sessions of one party and queue what they begin with. */
void play_begin(struct play *play, struct board *board, enum kind kind, unsigned party, unsigned sessions, size_t size);

/* Take bytes from the peer, whole frames or not. */
void play_feed(struct play *play, const uint8_t *data, size_t size);

/* Where the rest of a half-received payload belongs, and how many bytes it is; 0 between payloads. After bytes were
 * put there directly, play_fed says how many. */
size_t play_rest(const struct play *play, uint8_t **where);
void play_fed(struct play *play, size_t size);

/* Copy queued frames to `out`, as many bytes as fit, and return how many that were. The last may be cut. */
size_t play_write(struct play *play, uint8_t *out, size_t room);

/* The same without copying: up to `count_max` parts. After some bytes of them were sent, play_sent says how many. */
int play_gather(struct play *play, struct iovec *parts, int count_max);
void play_sent(struct play *play, size_t size);

/* The peer closed the connection: fine at the end of a run, a failure before. Does not return. */
_Noreturn void play_peer_left(const struct play *play);

#endif
