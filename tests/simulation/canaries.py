"""Bugs that are planted to see whether the simulation finds them. Test code alone: the engine never has any of them.

Each is a small slip of the kind that the checkers exist for, made by a subclass or a wrapper that stands in the
engine's place during a run. Guarantee: without a plant nothing here is used.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from partywire.engine import keeper, link_keeper, session_resets
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.hello import hello_of
from partywire.engine.link_keeper import LinkKeeper
from partywire.engine.multiplexer import Multiplexer
from partywire.engine.pump_states import Outgoing
from partywire.engine.records import DATA
from partywire.engine.rendezvous import RendezvousBook, Resumption
from partywire.workers import link_life
from partywire.workers.lane import Lane
from partywire.workers.retry import Ledger
from partywire.workers.session import Session
from partywire.workers.session_agreement import SessionAgreement
from partywire.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.engine.control import Resume
    from partywire.engine.handshake_messages import Hello
    from partywire.engine.records import StreamEnd

SLIP_INTERVAL: Final = 5
"""How often a planted bug that comes now and then comes."""


class LosingPump(ConnectionPump):
    """Releases a record, now and then, that was never sent."""

    served = 0

    def _serve_plain(self) -> bool:
        self.served += 1
        if self.served % SLIP_INTERVAL == 0 and self.outgoing is Outgoing.OPEN and not self._unsent:
            kinds = [record.kind for record in self._tx.poll(1)]
            if kinds == [DATA]:
                self._tx.release(1)
                return True
            self._finish_seen = bool(kinds)
        return super()._serve_plain()


class ForgetfulPump(ConnectionPump):
    """Takes a send that the kernel took in part for a whole one."""

    def _send(self) -> None:
        super()._send()
        if self._unsent:
            self._tx.release(len(self._unsent))
            self._unsent.clear()


class SilentPump(ConnectionPump):
    """Tells the worker of a goodbye, and not of a loss."""

    def tell(self, end: StreamEnd) -> None:
        if end.clean:
            super().tell(end)


class DoublingLane(Lane):
    """Writes the frames of a pass again, now and then, as one would after a reconnection."""

    flushes = 0

    def flush(self) -> bool:
        self.flushes += 1
        if self.flushes % SLIP_INTERVAL == 0 and (taken := self.take_gathered()):
            self.parts_size += 2 * len(taken)
            self.gather((taken, taken))
        return super().flush()


class OvertakingLane(Lane):
    """Lets the frames of a pass be overtaken by those of the next, now and then."""

    flushes = 0
    held = b""

    def flush(self) -> bool:
        self.flushes += 1
        taken = self.take_gathered()
        if self.flushes % SLIP_INTERVAL == 0 and not self.held:
            self.held, taken = taken, b""
        elif taken and self.held:
            taken, self.held = taken + self.held, b""
        if taken:
            self.parts_size += len(taken)
            self.gather((taken,))
        return super().flush()


def _arm_without_looking(worker: Worker) -> bool:
    worker._doorbell.arm()
    return True


def _close_at_once(multiplexer: Multiplexer) -> None:
    """Say goodbye without waiting for what the workers have sent."""
    multiplexer._lane.is_finished = True
    for pump in multiplexer._served:
        pump.break_outgoing()
    Multiplexer_begin_close(multiplexer)


Multiplexer_begin_close: Final = Multiplexer.begin_close


def _register_crosswise(session: Session) -> None:
    """Two peers' lanes under each other's names."""
    Session_register(session)
    if len(session._peers) > 1:
        mailboxes = session._mailboxes
        one, other = (mailbox.lane.link.index for mailbox in session._peers[:2])
        mailboxes[one], mailboxes[other] = mailboxes[other], mailboxes[one]


Session_register: Final = Session.register


def _fail_quietly(session: Session, error: Any, code: Any = None, reason: str = "") -> None:
    """Fail here, and keep it from the other parties."""
    Session_fail(session, error)


Session_fail: Final = Session.fail


@contextlib.contextmanager
def _failures_kept() -> Iterator[None]:
    """Other parties hear neither of the session's end nor, when a link is made anew, that its sessions are gone."""
    with (
        mock.patch.object(Session, "fail", _fail_quietly),
        mock.patch.object(SessionAgreement, "given_up_by", return_value=None),
    ):
        yield


def _hello_of_the_first_epoch(party: Any, peer: str, workers: int, options: Any, epoch: int = 1) -> Hello:
    return hello_of(party, peer, workers, options)


RendezvousBook_resumed: Final = RendezvousBook.resumed


def _resumed_as_another(book: RendezvousBook, peer: str, message: Resume) -> Resumption:
    """As if the peer could not have missed anything."""
    return RendezvousBook_resumed(book, peer, message)._replace(is_same_life=False)


session_resets_fresh_id: Final = session_resets.fresh_id


def _fresh_id_for_two(number: int, stride: int) -> int:
    """Lives that come soon after each other have one id."""
    return session_resets_fresh_id(number & ~7, stride)


Ledger_settle: Final = Ledger.settle


def _settle_alone(ledger: Ledger, theirs: object) -> bool:
    """Keep what this party holds, whatever the others do."""
    return Ledger_settle(ledger, ())


PLANTS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]] = {
    "a record is lost": lambda: mock.patch.object(keeper, "ConnectionPump", LosingPump),
    "a partial send counts as whole": lambda: mock.patch.object(keeper, "ConnectionPump", ForgetfulPump),
    "a loss is told to nobody": lambda: mock.patch.object(keeper, "ConnectionPump", SilentPump),
    "frames are doubled": lambda: mock.patch.object(link_life, "Lane", DoublingLane),
    "frames overtake": lambda: mock.patch.object(link_life, "Lane", OvertakingLane),
    "no look behind the armed doorbell": lambda: mock.patch.object(Worker, "arm", _arm_without_looking),
    "a goodbye does not wait": lambda: mock.patch.object(Multiplexer, "begin_close", _close_at_once),
    "two peers are mixed up": lambda: mock.patch.object(Session, "register", _register_crosswise),
    "a failure is kept from the others": _failures_kept,
    "a round is not said again": lambda: mock.patch.object(RendezvousBook, "resumed", _resumed_as_another),
    "a reset gives an id again": lambda: mock.patch.object(session_resets, "fresh_id", _fresh_id_for_two),
    "results are kept that others lack": lambda: mock.patch.object(Ledger, "settle", _settle_alone),
    "links outlive a worker": lambda: mock.patch.object(LinkKeeper, "replace_worker", return_value=None),
    "an epoch is used twice": lambda: mock.patch.object(link_keeper, "hello_of", _hello_of_the_first_epoch),
}
"""What is planted -> a context in which it is."""
