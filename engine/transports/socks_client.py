"""Asks a SOCKS5 proxy over a stream: for a connection, or for the address of a name.

Between the router and a stream to the proxy. The one invariant: after `connect_through` the stream stands at the first
byte of the far end; after any error it is closed. Deadlines are the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..exchange import receive_some, send_all
from .errors import SocksProtocolError
from .socks import SocksClient, SocksCommand

if TYPE_CHECKING:
    from ..transport import Stream
    from .socks import SocksCredentials


async def connect_through(
    stream: Stream, host: str, port: int, credentials: SocksCredentials | None, proxy: str
) -> None:
    """Make of a stream to a proxy one to `host`, a literal or a name, at `port`.

    Raises:
        AddressNotSupported: the host cannot be sent to a proxy.
        SocksError: the proxy refused, or broke off. In each case the stream is closed.
    """
    await _ask(stream, SocksCommand.CONNECT, host, port, credentials, proxy)


async def resolve_through(stream: Stream, host: str, credentials: SocksCredentials | None, proxy: str) -> str:
    """The address of a name as Tor sees it. The stream is closed in each case.

    Raises:
        SocksError: Tor has none, this is not Tor, or it broke off.
    """
    try:
        return await _ask(stream, SocksCommand.RESOLVE, host, 0, credentials, proxy)
    finally:
        stream.close()


async def _ask(
    stream: Stream, command: SocksCommand, host: str, port: int, credentials: SocksCredentials | None, proxy: str
) -> str:
    try:
        core = SocksClient(command, host, port, credentials, proxy)
        while core.result is None:
            await send_all(stream, core.data_to_send())
            received = await receive_some(stream, core.missing)
            if not received:
                raise core.receive_end_of_file()
            core.receive_data_untrusted(received)
        return core.result
    except OSError as error:
        stream.close()
        cause = f"its connection broke: {(error.strerror or str(error)).lower()}"
        raise SocksProtocolError(f"{host}:{port}", proxy, cause) from error
    except BaseException:
        stream.close()
        raise
