"""Jobs that behave and misbehave, for the tests of the command; found as `sample_jobs:Name` from this folder."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from partywire.workers.jobs import Job, JobOption, JobReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partywire import Session
    from partywire.workers.jobs import JobRunner

INPUTS = list(range(6))


async def rotate(session: Session, x: int) -> int:
    await session.send_next(bytes([x]))
    return int((await session.recv_prev())[0])


async def rotate_often(session: Session, x: int) -> int:
    while True:
        await rotate(session, x)


async def interrupt_before_await(session: Session, x: int) -> int:
    awaitable = session.recv_prev()
    os.kill(os.getpid(), signal.SIGINT)
    return int((await awaitable)[0])


def _may_go_on() -> bool:
    return os.path.exists(os.path.join(os.environ["PARTYWIRE_TEST_DIR"], "go"))


async def rotate_until_told(session: Session, x: int) -> int:
    """Until party 0 finds a file `go`."""
    told = b"\0"
    while told == b"\0":
        if session.party_index == 0:
            told = bytes([_may_go_on()])
            await session.broadcast(told)
        else:
            told = await session.recv(0)
        await rotate(session, x)
    return x


async def raise_at_bob(session: Session, x: int) -> int:
    if session.party_index == 1 and x == 2:
        raise ArithmeticError("two is too many")
    return await rotate(session, x)


async def vanish_at_bob(session: Session, x: int) -> int:
    if session.party_index == 1 and x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return await rotate(session, x)


class SampleJob(Job):
    """The common part: what is mapped, and a result."""

    name: ClassVar[str] = "sample"
    summary: ClassVar[str] = "for tests only"
    function: ClassVar[Any] = staticmethod(rotate)
    parties_range = range(2, 4)

    def run(self, runner: JobRunner) -> JobReport:
        values = runner.map(type(self).function, INPUTS)
        return JobReport({"values": values}, rows=[("values", " ".join(map(str, values)))])


class GoodJob(SampleJob):
    options = (
        JobOption("offset", "int", 0, "A private number."),
        JobOption("size", "int", 3, "A number that all parties know.", shared=True),
    )

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool | None:
        return result["values"] == INPUTS


class OtherJob(SampleJob):
    pass


class WrongJob(SampleJob):
    parties = 2

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool | None:
        return False


class TalkingJob(SampleJob):
    def run(self, runner: JobRunner) -> JobReport:
        print(f"party {self.party_index} says hello")
        print("and complains", file=sys.stderr)
        return super().run(runner)


class RaisingJob(SampleJob):
    function = staticmethod(raise_at_bob)


class VanishingJob(SampleJob):
    function = staticmethod(vanish_at_bob)


class EndlessJob(SampleJob):
    function = staticmethod(rotate_often)

    def run(self, runner: JobRunner) -> JobReport:
        print("running", flush=True)
        return super().run(runner)


class InterruptedJob(SampleJob):
    parties = 2
    function = staticmethod(interrupt_before_await)


class SteeredJob(SampleJob):
    function = staticmethod(rotate_until_told)


class SilentJob(SampleJob):
    """Its result has no place in JSON."""

    parties = 2

    def run(self, runner: JobRunner) -> JobReport:
        super().run(runner)
        return JobReport({"value": object()})


class PairJob(GoodJob):
    parties = 2


class NoJob:
    pass
