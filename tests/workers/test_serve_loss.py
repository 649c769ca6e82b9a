"""The parties of a service lose touch at every step: what their clients are shown is never of two runs of a job.

Real followers, orderers and job books; links, jobs and the death of parties are played, by one seed. A played run of a
job has a number, and its result is that number; so two results that differ are two runs.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from typing import TYPE_CHECKING

import pytest

from partywire.engine.errors import SetupAborted, SetupMismatch
from partywire.workers import serve_order
from partywire.workers.errors import JobFailed, PeerLost
from partywire.workers.serve_book import DONE, FAILED, FINAL, JobBook, JobEntry
from partywire.workers.serve_follower import Failure, Follower
from partywire.workers.serve_order import Orderer
from partywire.workers.serve_settle import settle
from partywire.workers.serve_words import (
    BROKEN,
    ENDED,
    FROM_ORDERER,
    OPEN,
    Ask,
    Cancel,
    Close,
    Ended,
    Go,
    Message,
    Prepare,
    Queue,
    Recall,
    Recalled,
    Settled,
    Submit,
    decode_untrusted,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PARTIES = ("alice", "bob", "charlie")
RETRIES = 2
STEPS = 400
JOBS = 6
SEEDS = 300


class Actor:
    """One party in one life."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.book = JobBook()
        self.copy = JobBook()  # as the worker that answers HTTP has it
        self.follower = Follower(
            name, PARTIES, self.book, RETRIES, refuse=self._refuse, prepare=self._prepare, tell=self._tell
        )
        self.orderer: Orderer | None = None
        self.session = 0  # that it believes in; 0: it waits for the others
        self.told: deque[Message] = deque()
        self.wishes: deque[Message] = deque()
        self.run: tuple[str, int] | None = None  # the job that runs here, and the session that said so
        self.verdict: int | None = None  # the number of the run when every party has every result

    def _refuse(self, job: str, options: object) -> str:
        return "not here" if self.world.chance.random() < 0.03 else ""

    def _prepare(self, entry: JobEntry) -> str:
        if self.world.chance.random() < 0.05:
            raise ValueError("no data")
        return entry.id

    def _tell(self, entry: JobEntry, result: bytes | None) -> None:
        self.copy.put(entry)
        if entry.state == DONE:
            assert result is not None
            self.world.shown[entry.id].add(int(result))
            self.world.has_shown = self.name
        assert entry.tries <= RETRIES + 1

    def lose(self) -> None:
        self.session = 0
        self.orderer = None
        told, self.told = list(self.told), deque()
        self.follower.lose(told)

    def meet(self, session: int) -> None:
        self.session = session
        self.orderer = Orderer(PARTIES, RETRIES) if self.name == PARTIES[0] else None
        self.wishes = deque(wish for wish in self.wishes if isinstance(wish, Cancel))
        for message in self.follower.recall():
            self.to_orderer(message)

    def to_orderer(self, message: Message) -> None:
        if self.orderer is not None:
            self.order(self.name, message)
        else:
            self.world.send(self, PARTIES[0], message)

    def order(self, party: str, message: Message) -> None:
        assert self.orderer is not None
        outs = self.orderer.take_untrusted(party, message)
        self.told += outs
        for out in outs:
            for peer in PARTIES:
                if peer != self.name:
                    self.world.send(self, peer, out)

    def follow(self) -> None:
        message = self.told.popleft()
        if isinstance(message, Go):
            self.world.has_begun = True
            self.world.went[self.session][self.name].append(message.id)
        for answer in self.follower.follow_untrusted(message):
            self.to_orderer(answer)


class World:
    """All parties, one session at a time, and what clients were shown."""

    def __init__(self, seed: int, *, faults: bool = True) -> None:
        self.chance = random.Random(seed)
        self.session = 0  # the latest one
        self.is_alive = False
        self.cables: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.shown: dict[str, set[int]] = defaultdict(set)
        self.went: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.runs = 0
        self.submitted: dict[str, Actor] = {}
        self.restarts = 0
        self.gave_up = False
        self.has_shown = ""  # the party that has just shown a result, which is the worst moment for it to die
        self.has_begun = False  # some party has just heard the word to begin, and others perhaps not
        self.faults = faults
        # How often what happens next is a fault; other rates make other worlds.
        self.cuts = self.chance.choice((0, 0.004, 0.02))
        self.deaths = self.chance.choice((0, 0.002, 0.01))
        self.cancels = self.chance.choice((0, 0.003))
        self.give_ups = self.chance.choice((0, 0.005))
        self.actors = {name: Actor(self, name) for name in PARTIES}

    def send(self, actor: Actor, to: str, message: Message) -> None:
        if self.is_alive and actor.session == self.session:
            self.cables[actor.name, to].append(encode(message))

    # What can happen next.

    def play(self) -> None:
        for _ in range(STEPS):
            self.step()
        self.faults = False
        for _ in range(20_000):
            if not self.step():
                break
        else:
            raise AssertionError("it never came to rest")
        self.check_end()

    def step(self) -> bool:
        """Do one of the things that can happen. False: nothing can."""
        choices: list[Callable[[], None]] = []
        for actor in self.actors.values():
            choices += self.choices_of(actor)
        if all(not actor.session and actor.run is None for actor in self.actors.values()):
            choices.append(self.meet)
        if len(self.submitted) < JOBS:
            choices.append(self.submit)
        if self.faults:
            chance = self.chance.random()
            who, self.has_shown = self.has_shown, ""
            begun, self.has_begun = self.has_begun, False
            if who and chance < 0.3:
                choices = [lambda: self.restart(who)]
            elif chance < self.cuts * (10 if begun else 1):
                choices = [self.cut]
            elif chance < self.cuts + self.deaths:
                choices = [lambda: self.restart(self.chance.choice(PARTIES))]
            elif chance < self.cuts + self.deaths + self.cancels:
                choices = [self.cancel]
        if not choices:
            return False
        self.chance.choice(choices)()
        self.check()
        return True

    def choices_of(self, actor: Actor) -> list[Callable[[], None]]:
        if actor.run is not None:
            return self.ends_of(actor)
        found: list[Callable[[], None]] = []
        if actor.follower.going:
            return [lambda: self.begin(actor)]
        if actor.session:
            if actor.told:
                found.append(actor.follow)
            elif actor.wishes and actor.follower.is_settled:
                found.append(lambda: actor.to_orderer(actor.wishes.popleft()))
            for (source, to), cable in self.cables.items():
                if to == actor.name and cable and actor.session == self.session:
                    found.append(lambda source=source: self.deliver(source, actor))  # type: ignore[misc]
            if not self.is_alive:
                found.append(actor.lose)
        elif self.faults and self.chance.random() < self.give_ups:
            found.append(lambda: self.give_up(actor))
        return found

    def deliver(self, source: str, actor: Actor) -> None:
        message = decode_untrusted(self.cables[source, actor.name].popleft(), source)
        if actor.orderer is not None:
            actor.order(source, message)
        else:
            assert isinstance(message, FROM_ORDERER)
            actor.told.append(message)

    def begin(self, actor: Actor) -> None:
        session = actor.session
        job, prepared = actor.follower.take_prepared()
        assert job == prepared
        actor.run = job, session
        actor.verdict = None

    def ends_of(self, actor: Actor) -> list[Callable[[], None]]:
        """How the run of a job can end at a party: as batches promise."""
        runs = {other.run for other in self.actors.values()}
        if actor.verdict is not None:
            well: list[Callable[[], None]] = [lambda: self.end(actor, (None, b"%d" % (actor.verdict or 0)))]
            if not self.is_alive and self.faults:  # the last word of another party was lost
                well.append(lambda: self.end(actor, Failure("lost", "lost", True)))
                well.append(lambda: self.end(actor, Failure("it stays away", "it stays away")))
            return well
        if runs == {actor.run}:
            return [*[self.complete] * 9, lambda: self.end(actor, Failure("my own words", "TypeError"))]
        if any(other.run != actor.run and other.verdict is None for other in self.actors.values()):
            waits = any(not other.session and other.run is None for other in self.actors.values())
            failed = any(actor.run[0] in other.follower._failures for other in self.actors.values() if actor.run)
            if failed:
                return [lambda: self.end(actor, Failure("it failed elsewhere", "it failed elsewhere"))]
            if waits:
                return [lambda: self.end(actor, Failure("out of step", "out of step", True))]
        return []

    def complete(self) -> None:
        self.runs += 1
        for actor in self.actors.values():
            actor.verdict = self.runs

    def end(self, actor: Actor, outcome: tuple[bool | None, bytes] | Failure) -> None:
        assert actor.run is not None
        job, _ = actor.run
        actor.run = actor.verdict = None
        actor.wishes.append(actor.follower.end(job, outcome))

    # Clients and faults.

    def submit(self) -> None:
        actor = self.actors[self.chance.choice(PARTIES)]
        job = f"{len(self.submitted):016x}"
        self.submitted[job] = actor
        actor.follower.put(JobEntry(job, "sum", {"size": len(self.submitted)}, actor.name))
        actor.wishes.append(Submit(job, "sum", {"size": len(self.submitted)}))

    def cancel(self) -> None:
        for job, actor in self.submitted.items():
            if self.actors[actor.name] is actor and not actor.book.entries[job].is_final:
                actor.wishes.append(Cancel(job))

    def cut(self) -> None:
        """The session is lost. Of what is under way, beginnings still arrive."""
        self.is_alive = False
        for cable in self.cables.values():
            for _ in range(self.chance.randint(0, len(cable))):
                cable.pop()

    def restart(self, name: str) -> None:
        self.cut()
        self.restarts += 1
        for pair, cable in self.cables.items():
            if pair[1] == name:
                cable.clear()
        self.actors[name] = Actor(self, name)

    def give_up(self, actor: Actor) -> None:
        self.gave_up = True
        actor.follower.give_up({actor.name: "bob is away, for more than 30 s"})

    def meet(self) -> None:
        self.session += 1
        self.is_alive = True
        self.cables.clear()
        for actor in self.actors.values():
            actor.meet(self.session)

    # What must hold.

    def check(self) -> None:
        for job, results in self.shown.items():
            assert len(results) <= 1, f"job {job} was shown with the results of runs {results}"
        running = {actor.run for actor in self.actors.values() if actor.run is not None}
        assert len({job for job, session in running if session == self.session}) <= 1
        for orders in self.went.values():
            longest = max(orders.values(), key=len, default=[])
            assert all(order == longest[: len(order)] for order in orders.values())

    def check_end(self) -> None:
        """All has come to rest, and nothing is lost."""
        books = [actor.book for actor in self.actors.values()]
        for job, actor in self.submitted.items():
            entries = [book.entries[job] for book in books if job in book.entries]
            assert all(entry.is_final for entry in entries), [entry.state for entry in entries]
            assert all(actor.copy.entries == actor.book.entries for actor in self.actors.values())
            if self.actors[actor.name] is actor:
                assert job in actor.book.entries
            states = {entry.state for entry in entries}
            if DONE in states:
                assert states == {DONE}
                assert {actor.book.results.get(job) for actor in self.actors.values()} <= {
                    None, *(b"%d" % run for run in self.shown[job])
                }  # fmt: skip
            elif not self.gave_up:
                assert len(states) <= 1, states
            if self.shown[job] and not self.restarts:
                assert states == {DONE}
        assert all(actor.follower.is_settled and not actor.wishes for actor in self.actors.values())
        assert not any(actor.follower._results or actor.follower._failures for actor in self.actors.values())


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_whatever_is_lost_no_two_runs_of_a_job_are_shown_and_every_job_ends(first: int) -> None:
    done = restarted = 0
    for seed in range(first, first + 50):
        world = World(seed)
        try:
            world.play()
        except BaseException as error:
            error.add_note(f"World({seed}).play()")
            raise
        done += sum(map(bool, world.shown.values()))
        restarted += world.restarts
    assert done > 50
    assert restarted > 30


def test_without_faults_every_job_is_done_or_one_party_says_why_not() -> None:
    for seed in range(5):
        world = World(seed, faults=False)
        world.play()
        for job in world.submitted:
            states = {actor.book.entries[job].state for actor in world.actors.values()}
            assert len(states) == 1
            assert states <= {DONE, FAILED, "refused"}


def found_by_seeds(seeds: int) -> bool:
    for seed in range(seeds):
        try:
            World(seed).play()
        except AssertionError:
            return True
    return False


def test_a_canary_that_keeps_results_of_an_earlier_run_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Follower, "_forget", lambda self, job_id: None)
    assert found_by_seeds(SEEDS)


def test_a_canary_that_runs_again_what_a_dead_orderer_may_have_shown_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(
        recalled: Mapping[str, Mapping[str, Recall]], parties: Sequence[str], retries: int
    ) -> list[Close | Ask]:
        found = settle(recalled, parties, retries)
        return [again(one, recalled) if isinstance(one, Close) else one for one in found]

    def again(close: Close, recalled: Mapping[str, Mapping[str, Recall]]) -> Close | Ask:
        if "has forgotten whether" not in str(close.causes):
            return close
        recall = next(known[close.id] for known in recalled.values() if close.id in known and known[close.id].options)
        return Ask(recall.id, recall.job, recall.options, recall.party)

    monkeypatch.setattr(serve_order, "settle", careless)
    assert found_by_seeds(SEEDS)


# What is decided, case by case.

JOB = "0" * 16


def remembered(word: str, *, party: str = "bob", tries: int = 1, causes: dict[str, str] | None = None) -> Recall:
    return Recall(
        JOB, "sum", {"size": 1} if party == "bob" and word not in FINAL else {}, "bob", word, causes or {}, tries
    )


def decided(alice: str, bob: str, charlie: str, *, tries: int = 1, retries: int = RETRIES) -> Close | Ask | None:
    """What becomes of a job that bob's client submitted and that each party remembers so; "" for not at all."""
    words = dict(zip(PARTIES, (alice, bob, charlie), strict=True))
    recalled = {
        party: {JOB: remembered(word, party=party, tries=tries, causes={party: "why"} if word == BROKEN else None)}
        if word
        else {}
        for party, word in words.items()
    }
    found = settle(recalled, PARTIES, retries)
    return found[0] if found else None


def test_what_becomes_of_a_job_follows_from_what_all_remember() -> None:
    again = Ask(JOB, "sum", {"size": 1}, "bob")
    assert decided(ENDED, ENDED, ENDED) == Close(JOB, DONE, {})
    assert decided(OPEN, OPEN, OPEN, tries=0) == again
    assert decided("", OPEN, "", tries=0) == again  # nobody but bob has heard of it
    assert decided(ENDED, ENDED, OPEN) == again
    assert decided(ENDED, ENDED, "") == again  # charlie was started again, and had not said that it ended well
    assert decided(BROKEN, OPEN, BROKEN) == again
    assert decided("", BROKEN, ENDED) == again  # alice cannot have shown a result
    assert decided(DONE, DONE, DONE) is None
    for final in (DONE, FAILED, "refused", "cancelled"):
        assert decided(final, ENDED, "") == decided(OPEN, ENDED, final) == Close(JOB, final, {})


def test_what_nobody_can_know_or_has_been_tried_too_often_fails_with_a_sentence() -> None:
    forgotten = decided(ENDED, "", OPEN)
    assert isinstance(forgotten, Close)
    assert "bob, where it was submitted, was started again" in forgotten.causes["bob"]
    for charlie in (ENDED, ""):
        unknown = decided("", ENDED, charlie)
        assert isinstance(unknown, Close)
        assert "alice, which orders the jobs, was started again" in unknown.causes["alice"]
    assert decided(BROKEN, BROKEN, OPEN, tries=RETRIES) == Ask(JOB, "sum", {"size": 1}, "bob")
    assert decided(BROKEN, BROKEN, OPEN, tries=RETRIES + 1) == Close(JOB, FAILED, {"alice": "why", "bob": "why"})
    assert decided(BROKEN, OPEN, OPEN, retries=0) == Close(JOB, FAILED, {"alice": "why"})
    assert decided(OPEN, OPEN, OPEN, tries=0, retries=0) == Ask(JOB, "sum", {"size": 1}, "bob")
    unfinished = decided(ENDED, OPEN, "", tries=RETRIES + 1)
    assert isinstance(unfinished, Close)
    assert unfinished.causes.keys() == {"bob", "charlie"}


def test_what_is_over_is_told_before_anything_is_asked_for_anew() -> None:
    """Or a party that missed both might hear of more open jobs than anybody may have."""
    new, old = Recall("1" * 16, "sum", {}, "alice", OPEN, {}, 0), Recall(JOB, "sum", {}, "alice", OPEN, {}, 0)
    found = settle({"alice": {new.id: new}, "bob": {JOB: old}, "charlie": {}}, ("alice", "bob", "charlie"), RETRIES)
    assert [type(one) for one in found] == [Close, Ask]


def test_parties_that_remember_different_jobs_of_one_id_run_neither() -> None:
    other = Recall(JOB, "sum", {}, "charlie", OPEN, {}, 0)
    found = settle({"alice": {}, "bob": {JOB: remembered(OPEN)}, "charlie": {JOB: other}}, PARTIES, RETRIES)
    assert found == [Close(JOB, FAILED, {"alice": "the parties do not remember the same job"})]


# Which failures of a run leave its outcome to the parties' next meeting.


def raised(error: BaseException, cause: BaseException | None = None, context: BaseException | None = None) -> Failure:
    error.__cause__, error.__context__ = cause, context
    return Failure.of(error)


def test_a_run_that_another_party_was_not_in_may_go_well_and_no_other_one() -> None:
    elsewhere = SetupMismatch(3, "kind", "batch", "serve", "bob")
    lost = PeerLost("bob", 1, 1, "it broke")
    assert raised(elsewhere).may_run_again
    assert raised(SetupAborted(3, "bob", "its link broke")).may_run_again
    assert raised(JobFailed(0, "bob", "lost"), lost, elsewhere).may_run_again
    assert raised(JobFailed(0, "bob", "lost"), lost, SetupAborted(3, "bob", "goes on", is_skipped=True)).may_run_again
    assert not raised(JobFailed(0, "bob", "lost"), lost, SetupAborted(3, "bob", "it was interrupted")).may_run_again
    assert not raised(JobFailed(0, "bob", "lost"), lost).may_run_again
    assert not raised(JobFailed(0, "alice", "wrong"), ArithmeticError("wrong"), elsewhere).may_run_again
    assert not raised(SetupMismatch(3, "number of inputs", 3, 4, "bob")).may_run_again
    assert not raised(ValueError("my own")).may_run_again


@pytest.mark.parametrize("state", ["refused", "cancelled", FAILED])
def test_an_end_that_was_told_while_this_party_was_away_is_told_in_steps_that_a_copy_of_the_book_takes(
    state: str,
) -> None:
    book, copy = JobBook(), JobBook()
    running = JobEntry(JOB, "sum", {}, "alice", "running", tries=1)
    for one in (book, copy):
        one.put(running)
    follower = Follower(
        "bob",
        PARTIES,
        book,
        RETRIES,
        refuse=lambda job, options: "",
        prepare=lambda entry: None,
        tell=lambda entry, result: copy.put(entry),
    )
    follower.follow_untrusted(Close(JOB, state, {"charlie": "not here"}))
    assert copy.entries[JOB].state == state


def test_words_that_our_own_clients_read_are_not_recalled_to_peers() -> None:
    book = JobBook()
    follower = Follower(
        "bob", PARTIES, book, RETRIES, refuse=lambda job, options: "", prepare=lambda entry: None, tell=lambda *_: None
    )
    follower.follow_untrusted(Ask(JOB, "sum", {}, "alice"))
    for message in (Settled(), Queue(JOB), Prepare(JOB), Go(JOB)):
        follower.follow_untrusted(message)
    follower.take_prepared()
    assert follower.end(JOB, Failure("the secret is 42", "ValueError")) == Ended(JOB, "ValueError")
    follower.lose([])
    assert book.entries[JOB].causes == {"bob": "the secret is 42"}
    [recall, end] = follower.recall()
    assert isinstance(recall, Recall)
    assert (recall.word, recall.causes, end) == (FAILED, {"bob": "ValueError"}, Recalled())
