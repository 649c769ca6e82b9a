"""From a stream to a secured one whose other end has shown a static key: the wire byte and Noise.

Between who got a stream, dialled or accepted, and the substreams on it. The one invariant: the stream that comes out is
encrypted to whoever holds the static key that comes with it (with IX, once the first record was opened); who that is,
the identity exchange says. When this raises, or is cancelled, the stream is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..channel.noise import AbstractNoiseChannel
from ..errors import HandshakeRejected, LinkProtocolError
from ..exchange import receive_some, send_all
from ..greeting import dismiss
from ..handshake import Role
from ..noise import HandshakeState
from ..secure_stream import SecureStream
from .errors import UpgradeFailed
from .wire import LivenessEcho, check_first_byte_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..noise import PrivateKey, PublicKey
    from ..transport import Stream
    from .options import PeerOptions

_PROLOGUE_LABEL = b"partywire peer 1"

_FIRST_BYTE = "first byte"
_HANDSHAKE = "Noise handshake"
_ECHO = "liveness echo"


class PeerChannel(AbstractNoiseChannel):
    """Noise between peers: by default whoever holds the key that it shows is accepted, and told apart later."""

    def __init__(
        self, role: Role, address: str, key: PrivateKey, options: PeerOptions, expected: PublicKey | None = None
    ) -> None:
        """`address` names the other end, in messages that it may get to see. `expected` is the key of whom we dial, if
        it is known: to anybody else nothing is shown of ours."""
        self._expected = expected
        prologue = _PROLOGUE_LABEL + bytes((options.network_byte,))
        handshake = HandshakeState(options.noise, role is Role.INITIATOR, key, prologue=prologue, peer=address)
        super().__init__(role, address, handshake)

    @property
    def peer_key(self) -> PublicKey:
        """What the other end showed. There is a `result`."""
        key = self._handshake.remote_static
        assert key is not None
        return key

    def _accepts(self, shown: PublicKey) -> bool:
        return self._expected is None or shown == self._expected

    @property
    def _wrong_key(self) -> str:
        return "the key that was shown is not that of the peer to be found there"


async def secure_dialled(
    stream: Stream, address: str, key: PrivateKey, options: PeerOptions, expected: PublicKey | None
) -> tuple[SecureStream, PublicKey]:
    """Send the network byte and shake hands.

    Raises:
        UpgradeFailed: it came to nothing; the sentence says why.
    """
    channel = PeerChannel(Role.INITIATOR, address, key, options, expected)
    return await _shake_hands(stream, channel, bytes((options.network_byte,)), address, options)


async def secure_accepted(
    stream: Stream, address: str, key: PrivateKey, options: PeerOptions
) -> tuple[SecureStream, PublicKey]:
    """Shake hands behind the network byte.

    Raises:
        UpgradeFailed: it came to nothing.
    """
    return await _shake_hands(stream, PeerChannel(Role.RESPONDER, address, key, options), b"", address, options)


async def read_first_byte(stream: Stream, address: str, options: PeerOptions) -> bool:
    """Whether who dialled asks for an echo; otherwise it said the byte of our network.

    Raises:
        UpgradeFailed: it said another byte, or none in time.
    """
    byte = memoryview(bytearray(1))
    try:
        async with asyncio.timeout(options.first_byte_timeout_s):
            if not await _receive_into(stream, byte):
                raise UpgradeFailed(address, _FIRST_BYTE, "the connection ended without one")
        return check_first_byte_untrusted(byte[0], options.network_byte)
    except TimeoutError:
        stream.abort()
        raise UpgradeFailed(address, _FIRST_BYTE, f"none came within {options.first_byte_timeout_s:g} s") from None
    except LinkProtocolError as error:
        stream.abort()
        raise UpgradeFailed(address, _FIRST_BYTE, f"it is {error.seen}, ours is {error.limit}") from None
    except OSError as error:
        stream.abort()
        raise UpgradeFailed(address, _FIRST_BYTE, _words(error)) from None
    except BaseException:
        stream.abort()
        raise


async def echo_liveness(
    stream: Stream, address: str, options: PeerOptions, on_lines: Callable[[bytes], object]
) -> None:
    """Echo lines until the other end ends, had all that it gets, or the time is over; the stream is closed behind it.
    `on_lines` gets whole lines before they go back.

    Raises:
        UpgradeFailed: it sent something else than short lines.
    """
    echo = LivenessEcho(address)
    try:
        async with asyncio.timeout(options.liveness_timeout_s):
            while not echo.is_over and (data := await receive_some(stream)):
                lines = echo.receive_untrusted(data)
                on_lines(lines)
                await send_all(stream, lines)
        await dismiss(stream, b"")
    except LinkProtocolError as error:
        raise UpgradeFailed(address, _ECHO, str(error)) from None
    except (OSError, TimeoutError):
        pass  # it went away, or took its time: nothing was promised
    finally:
        stream.close()


async def _shake_hands(
    stream: Stream, channel: PeerChannel, first: bytes, address: str, options: PeerOptions
) -> tuple[SecureStream, PublicKey]:
    try:
        async with asyncio.timeout(options.handshake_timeout_s):
            await send_all(stream, first + channel.data_to_send())
            while channel.result is None:
                if data := await receive_some(stream):
                    channel.receive_data(data)
                else:
                    channel.receive_eof()
                await send_all(stream, channel.data_to_send())
        return SecureStream(stream, channel, asyncio.get_running_loop()), channel.peer_key
    except HandshakeRejected as error:
        await dismiss(stream, channel.data_to_send())
        who = "we refused it" if error.by_us else "it refused us"
        raise UpgradeFailed(address, _HANDSHAKE, f"{who}: {error.detail}") from None
    except LinkProtocolError as error:
        stream.abort()
        raise UpgradeFailed(address, _HANDSHAKE, f"{error.what}: {error.seen}") from None
    except TimeoutError:
        stream.abort()
        cause = f"not done within {options.handshake_timeout_s:g} s"
        raise UpgradeFailed(address, _HANDSHAKE, cause) from None
    except OSError as error:
        stream.abort()
        raise UpgradeFailed(address, _HANDSHAKE, _words(error)) from None
    except BaseException:
        stream.abort()
        raise


async def _receive_into(stream: Stream, view: memoryview) -> int:
    """As many bytes as there are, and not one more: what follows is for somebody else."""
    while (count := stream.try_recv_into(view)) is None:
        ready = asyncio.Event()
        stream.on_readable(ready.set)
        try:
            await ready.wait()
        finally:
            stream.on_readable(None)
    return count


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
