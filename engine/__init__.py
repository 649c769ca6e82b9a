"""The engine: everything between a worker's rings and the sockets of its peers.

Upper half, which does no I/O and reads no clock (bytes and `now` come in, frames, bytes and deadlines go out):
`errors`, `limits`, `topology`, `frames`, `frame_buffer`, `preamble`, `handshake`, `control`, `rendezvous`, `sessions`,
`connection`, `link`. It could be lifted out as a library of its own, and a test keeps sockets and clocks out of it.

Lower half, which owns sockets and processes: the transports, the dialler, the gateway, the multiplexer, the I/O process
and the supervisor.

The one invariant: bytes of a peer are validated in the upper half, by functions whose names end in `_untrusted`, before
anything is allocated for them or decided by them.
"""
