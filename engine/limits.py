"""Every bound of the engine, each with its reason.

A size that a peer announces is compared with one of these before a byte is reserved for it. Sizes are in bytes and
times in seconds unless the name says otherwise. `docs/memory.md` sums them up.
"""

from __future__ import annotations

from typing import Final

# Frames.

FRAGMENT_SIZE: Final = 256 * 1024
"""Data in one fragment. A sender cuts every message above it. Small enough that a large message delays another session
of the connection by tens of microseconds, large enough that the cost per frame vanishes against the copy."""

FRAME_SIZE_MAX: Final = 1024 * 1024
"""Largest body of one frame that is accepted. Four times what our own senders produce, so that a peer with other
settings still fits, and the most memory that one half-received frame of one connection can hold."""

MESSAGE_SIZE_MAX: Final = 2**32 - 1
"""Largest message, and the most bits of a VecBit: the length field of the wire is a u32. The configuration may lower
it."""

NETWORK_VEC_ELEMENTS_MAX: Final = 65_536
"""Elements in one NetworkVec. An element can be one byte on the wire but costs about a hundred in memory, so the byte
limit alone would let a peer multiply its bytes a hundredfold. Arbitrary; the iris protocol sends tens."""

REASON_SIZE_MAX: Final = 1024
"""UTF-8 bytes of a reason in a reset, job end, goodbye or rejection: one sentence, which may name every party."""

CONTROL_SIZE_MAX: Final = 64 * 1024
"""Body of one CONTROL frame. The largest that we send names every party in a few KiB."""

# Parties and connections.

NAME_SIZE_MAX: Final = 64
"""UTF-8 bytes of a party's name."""

PARTIES_MIN: Final = 2
PARTIES_MAX: Final = 9
"""Parties of one computation. Every party has a link to every other one, so traffic and set-up are quadratic; nine is
as far as whole computations are tested."""

LINKS_PER_IO_PROCESS_MAX: Final = PARTIES_MAX - 1
"""Links that one I/O process can be told to serve: all of a party."""

WORKERS_MAX: Final = 64
"""Compute processes of one party."""

CONNECTIONS_MAX: Final = 16
"""Normal connections of one link: the least common multiple of both worker counts must not exceed it."""

SESSIONS_MAX: Final = 65_536
"""Sessions made by one call. Each costs about 2 KiB at a party with two peers (`partywire perf sessions`), so one call,
to which every party has to agree, costs each of them at most 128 MiB. Further calls are bounded by the ids alone."""

# Set-up.

UNIDENTIFIED_MAX: Final = 256
"""Connections whose first 32 bytes a gateway waits for. Twice what all peers dial at once, so that they fit beside a
crowd; each costs a descriptor, of which processes have 1,024 by default. The configuration may set another number; a
quarter of it is the most for one address (IPv6: one /64 network) that is not of this host."""

UNIDENTIFIED_BOUNDS: Final = (16, 4096)
"""What it may be set to: all connections of one peer at once, and as many descriptors as a process often has."""

HANDSHAKE_SIZE_MAX: Final = 8 * 1024
"""Body of one handshake message. The largest, a HELLO with 9 names of 64 bytes, has 800."""

RENDEZVOUS_AHEAD_MAX: Final = 64
"""Rounds that a peer may announce before we enter them. A peer waits for everybody at the end of each round, so it is
ahead only by the rounds that it runs at the same time; 64 concurrent ones is arbitrary and plenty."""

KIND_SIZE_MAX: Final = 64
"""UTF-8 bytes of the kind of a rendezvous ("barrier", "make_sessions", "batch")."""

# Times of a link.

CONNECT_TIMEOUT_S: Final = 30.0
"""From the start of a party until every connection of a link stands; parties are started by hand, one after another."""

HANDSHAKE_TIMEOUT_S: Final = 5.0
"""From a connection's first byte until its handshake is done: two round trips, so more means a dead or hostile peer."""

HEARTBEAT_INTERVAL_S: Final = 1.0
"""Between two pings on a control connection."""

HEARTBEAT_TIMEOUT_S: Final = 5.0
"""Silence on a control connection after which the link is lost: five pings, so one lost packet cannot end a job."""

RECONNECT_TIMEOUT_S: Final = 10.0
"""How long a common step waits for a lost link, which itself is dialled again for ever: twice the heartbeat timeout,
because the peer may notice the loss so much later than we, and a process that is started again needs a second."""

CLOSE_TIMEOUT_S: Final = 5.0
"""From our goodbye until the peer's streams ended; what was sent is delivered, or given up, within it."""

GOODBYE_GRACE_S: Final = 1.0
"""How long a data connection may have ended before the goodbye arrives on the control connection: the two are separate
TCP streams, and their order is lost."""
