"""MPyC over PartyWire: its runtime starts, runs and ends as ever, and its messages go over our sessions.

Between `mpyc.runtime.Runtime`, of which `start` and `run` are replaced, and MpycTransport. The one invariant: whatever
MPyC does for one party alone, and all that it computes, is its own code.

    python -m partywire.workers.adapters.mpyc prog.py -M3      an MPyC program as it is (or: partywire mpyc ...)
    install()                                                  in a program, before MPyC's runtime is started

MPyC is imported when one of the two is used, never by the import of this module; and most of PartyWire when the runtime
starts, because MPyC has started the other parties by then, which import as much at the same time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from .mpyc_config import MpycSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .mpyc_transport import MpycTransport

__all__ = ["MpycSettings", "install"]

log = logging.getLogger("partywire.mpyc")

CLEAN_UP_S: Final = 2.0
"""How long a program that cannot go on may take to leave its `async with mpc`."""

ADAPTER: Final = "partywire_adapter"
"""Attribute of MPyC's class of runtimes that holds its adapter."""


def install(settings: MpycSettings | None = None) -> None:
    """Have MPyC's runtime exchange its messages over PartyWire from its next start on. May be called again.

    Raises:
        ModuleNotFoundError: MPyC is not installed; `pip install 'partywire[mpyc]'` brings it.
    """
    from mpyc.runtime import Runtime

    patch(Runtime, settings or MpycSettings())


def patch(runtime_class: Any, settings: MpycSettings) -> None:
    """Replace `start` and `run` of MPyC's class of runtimes, or change the settings if they are replaced already."""
    adapter: MpycAdapter | None = getattr(runtime_class, ADAPTER, None)
    if adapter is not None:
        adapter.settings = settings
        return
    adapter = MpycAdapter(settings, runtime_class.start, runtime_class.run)

    async def start(self: Any) -> None:
        """Start the MPyC runtime. Open links to the other parties, if any, by PartyWire."""
        await adapter.start(self)

    def run(self: Any, f: Awaitable[Any]) -> Any:
        """Run the given coroutine or future until it is done, or until the program cannot go on because of a peer."""
        return adapter.run(self, f)

    runtime_class.start = start
    runtime_class.run = run
    setattr(runtime_class, ADAPTER, adapter)


class MpycAdapter:
    """What the replaced methods do. Driven by them; runtimes are MPyC's, of which a process usually has one."""

    def __init__(
        self,
        settings: MpycSettings,
        start: Callable[[Any], Awaitable[None]],
        run: Callable[[Any, Awaitable[Any]], Any],
    ) -> None:
        """`start` and `run` are MPyC's own."""
        self.settings = settings
        self._start = start
        self._run = run
        # Of the runtime that was started last, if it has peers.
        self._transport: MpycTransport | None = None
        self._is_running = False  # inside `run`, which then reports a failure

    async def start(self, runtime: Any) -> None:
        """Open the links to all parties and exchange the keys of pseudo-random secret sharing (PRSS).

        Raises:
            ConfigError: MPyC's options ask for what is not possible here, or not without saying so.
            ConnectFailed, AddressUnavailable, PartyFailed: as `Party.open`.
            PeerLost, PeerClosed, PeerAborted, LinkProtocolError: a peer left, or is no MPyC party of this computation.
        """
        if len(runtime.parties) == 1:
            await self._start(runtime)
            return
        from ..errors import describe_to_peers

        logging.info(f"Start MPyC runtime v{runtime.version}")
        _be_brief()
        is_first = self._transport is None  # else it spares what the last computation has left, for ever
        if is_first:
            _spare_what_is_there()  # before so much is imported
        self._transport = transport = self._new_transport(runtime)
        runtime.parties[runtime.pid].protocol = runtime._loop.create_future()
        await transport.open()
        try:
            if not runtime.options.no_prss:
                await _exchange_keys(runtime, transport)
        except BaseException as error:
            transport.end(describe_to_peers(error))
            raise
        transport.begin()
        for pid, link in transport.links.items():
            runtime.set_protocol(pid, link)
        if is_first:
            _spare_what_is_there()
        secured = " (TLS)" if runtime.options.ssl else ""
        logging.info(f"All {len(runtime.parties)} parties connected by PartyWire{secured}.")
        runtime.start_time = time.time()

    def _new_transport(self, runtime: Any) -> MpycTransport:
        from .mpyc_config import config_of
        from .mpyc_transport import MpycTransport

        addresses = [(party.host, party.port) for party in runtime.parties]
        config = config_of(runtime.pid, addresses, runtime.threshold, runtime.options, self.settings)

        def is_shutting_down() -> bool:
            ours = runtime.parties[runtime.pid].protocol
            return runtime.start_time is not None and isinstance(ours, asyncio.Future) and not ours.done()

        return MpycTransport(
            config,
            runtime._loop,
            is_shutting_down=is_shutting_down,
            on_closed=runtime.unset_protocol,
            on_failure=self._has_failed,
        )

    def _has_failed(self) -> bool:
        transport = self._transport
        assert transport is not None
        if self._is_running:
            transport.loop.stop()
        else:
            # Somebody else drives the loop (a notebook, a console): whoever waits has to be told.
            transport.fail_expected()
        return self._is_running

    def run(self, runtime: Any, awaitable: Awaitable[Any]) -> Any:
        """MPyC's `run`, which in addition raises when a peer is lost.

        MPyC's tasks cannot carry an error to whoever waits for their results, and there may be thousands of them. So
        the loop is stopped, the program's main coroutine is cancelled, and the error is raised here.

        Raises:
            PeerLost, PeerClosed, PeerAborted, InboxOverflow, LinkProtocolError, PartyFailed: why it cannot go on.
        """
        if self._is_running or runtime._loop.is_running():
            return self._run(runtime, awaitable)
        main = asyncio.ensure_future(awaitable, loop=runtime._loop)
        self._is_running = True
        try:
            return self._run(runtime, main)
        except RuntimeError:
            failure = self._transport.failure if self._transport is not None else None
            if main.done() or failure is None:
                raise
        finally:
            self._is_running = False
        from ..errors import describe_to_peers

        _cancel(main, runtime._loop)
        assert self._transport is not None
        self._transport.end(describe_to_peers(failure))
        raise failure


def _cancel(main: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Let the program's main coroutine clean up. What others of MPyC's tasks complain of meanwhile is of no use: they
    find results cancelled that the main coroutine waited for."""
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: log.debug("while the program ends: %s", context.get("message")))
    try:
        main.cancel()
        loop.run_until_complete(asyncio.wait([main], timeout=CLEAN_UP_S))
    except RuntimeError:
        log.debug("one of MPyC's tasks stopped the loop before the program had cleaned up")
    finally:
        loop.set_exception_handler(handler)


def _be_brief() -> None:
    """MPyC logs to the root logger from INFO on; of ours a program's user wants warnings, unless told otherwise."""
    ours = logging.getLogger("partywire")
    if ours.level == logging.NOTSET and logging.getLogger().level > logging.DEBUG:
        ours.setLevel(logging.WARNING)


def _spare_what_is_there() -> None:
    """Have the collector of cycles look no more at what the program consists of before it computes: its modules,
    NumPy's and ours. MPyC makes cycles all the time, and of each full collection those were most of the work.
    """
    gc.freeze()


async def _exchange_keys(runtime: Any, transport: MpycTransport) -> None:
    """PRSS keys go from each party to those with a greater pid, as MPyC has it."""
    keys = {pid: b"".join(runtime._prss_keys_to_peer(pid)) for pid in transport.links}
    sizes = {pid: runtime._prss_keys_from_peer(pid) for pid in transport.links}
    for pid, received in (await transport.exchange(keys, sizes)).items():
        runtime._prss_keys_from_peer(pid, received)


if __name__ == "__main__":
    from .mpyc_program import main

    main()
