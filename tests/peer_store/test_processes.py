"""One store and several processes: kill -9, readers beside a writer, owners, and folders that cannot be used."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import pytest

from partywire.engine.peer_store import environment
from partywire.engine.peer_store.errors import (
    PeerStoreBusy,
    PeerStoreInUse,
    PeerStoreMissing,
    PeerStoreUnavailable,
    PeerStoreUnusable,
)
from partywire.engine.peer_store.query import PeerFilter
from partywire.engine.peer_store.store import PeerStore
from tests.peer_store.peers import peer_id, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.peer_store.environment import Environment, Transaction

ROOT = Path(__file__).parent.parent.parent
KILLS = 40


@contextmanager
def process(role: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.peer_store.writing_process", role, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def tell(child: subprocess.Popen[str], text: str) -> None:
    assert child.stdin is not None
    child.stdin.write(text + "\n")


def test_everything_that_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    chance = random.Random(7)
    folder = tmp_path / "store"
    written = 0
    with process("write", folder) as child:
        for _ in range(KILLS):
            tell(child, str(written))
            pid = int(line(child).removeprefix("pid "))
            for _ in range(chance.randrange(6)):
                assert line(child) == f"done {written}"
                written += 1
            os.kill(pid, signal.SIGKILL)
            while (said := line(child)) != "killed":
                assert said == f"done {written}"
                written += 1
    assert written > KILLS
    with PeerStore(folder) as store:
        assert store.quarantined == {}
        everybody = store.select(PeerFilter(is_banned=None))
        there = {one.peer_id for one in everybody}
        for number in range(written):
            assert store.get(peer_id(number)) == record(number, claim=bytes(number * 37 % 3000))
            assert (peer_id(number + 500_000) in there) == (number % 5 != 0)
            assert (store.ban_of(peer_id(number)) is not None) == (number % 3 == 0)
        # The write that was under way is there whole, both of its peers, or not.
        assert len(there) - (written + sum(number % 5 != 0 for number in range(written))) in (0, 1, 2)
        assert (peer_id(written) in there) >= (peer_id(written + 500_000) in there)


def test_a_reader_sees_what_another_process_wrote_and_its_map_grows_with_it(tmp_path: Path) -> None:
    with PeerStore(tmp_path) as store, process("read", tmp_path) as child:
        assert line(child) == "open"
        for fewer, more in ((0, 10), (10, 400)):
            store.add(
                *(record(number, claim=bytes(8192), protocols=("x" * 255,) * 64) for number in range(fewer, more))
            )
            tell(child, "")
            assert line(child) == str(more)


def test_a_node_keeps_another_one_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    with process("write", tmp_path) as child:
        tell(child, "0")
        pid = int(line(child).removeprefix("pid "))
        assert line(child) == "done 0"
        with pytest.raises(PeerStoreInUse, match=f"belongs to process {pid}"):
            PeerStore(tmp_path, "own")
        with PeerStore(tmp_path, "share") as store:
            store.add(record(-1))
        with PeerStore(tmp_path, "read") as store:
            assert store.get(peer_id(-1)) == record(-1)
        os.kill(pid, signal.SIGKILL)
        while line(child) != "killed":
            pass
        with PeerStore(tmp_path, "own") as store:
            assert store.get(peer_id(-1)) == record(-1)


def test_a_writer_that_is_stopped_holds_others_up_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "WRITE_TIMEOUT_S", 0.1)
    with PeerStore(tmp_path) as store, process("hold", tmp_path) as child:
        pid = int(line(child).removeprefix("pid "))
        with pytest.raises(PeerStoreBusy, match=f"process {pid} has been writing"):
            store.add(record(2))
        assert store.get(peer_id(1)) is store.get(peer_id(2)) is None
        os.kill(pid, signal.SIGCONT)
        assert line(child) == "done"
        store.add(record(2))
        assert store.count() == 2


def test_one_process_opens_a_folder_once(tmp_path: Path) -> None:
    with PeerStore(tmp_path):
        for mode in ("own", "share", "read"):
            with pytest.raises(PeerStoreInUse, match=f"process {os.getpid()}"):
                PeerStore(tmp_path, mode)
    PeerStore(tmp_path).close()


def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(PeerStoreMissing, match="there is no peer store in"):
            PeerStore(folder, "read")
    assert list(tmp_path.iterdir()) == []


def test_only_we_may_read_or_write_what_is_made(tmp_path: Path) -> None:
    with PeerStore(tmp_path / "store") as store:
        store.add(record(1))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()}
    assert modes == dict.fromkeys(["data.mdb", "lock.mdb", "owner.lock", "writer.lock"], 0o600)
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [".", "data.mdb"])
def test_a_store_that_others_may_write_is_refused(tmp_path: Path, name: str) -> None:
    PeerStore(tmp_path).close()
    (tmp_path / name).chmod(0o777)
    for mode in ("own", "read"):
        with pytest.raises(PeerStoreUnusable, match="chmod go-w"):
            PeerStore(tmp_path, mode)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"something else" * 1000)
    (tmp_path / "data.mdb").chmod(0o600)
    with pytest.raises(PeerStoreUnusable, match="not an LMDB file"):
        PeerStore(tmp_path)
    other = tmp_path / "other"
    with lmdb.open(str(other), mode=0o600) as env, env.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    other.chmod(0o700)
    with pytest.raises(PeerStoreUnusable, match="a database of something else"):
        PeerStore(other, "read")
    with pytest.raises(PeerStoreUnusable):
        PeerStore(tmp_path / "data.mdb")


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95])
def test_a_store_that_was_cut_is_refused_instead_of_ending_the_process(tmp_path: Path, part: float) -> None:
    with PeerStore(tmp_path) as store:
        store.add(*(record(number, claim=bytes(number % 7 * 1000)) for number in range(300)))
    size = (tmp_path / "data.mdb").stat().st_size
    os.truncate(tmp_path / "data.mdb", int(size * part) // 4096 * 4096)
    for mode in ("own", "read"):
        with pytest.raises(PeerStoreUnusable, match="it was cut"):
            PeerStore(tmp_path, mode)


def test_a_store_whose_last_pages_were_never_written_was_not_cut(tmp_path: Path) -> None:
    def taking_and_giving_back(transaction: Transaction) -> None:
        for number in range(40):
            transaction.put(b"%d" % number, bytes(9000), db=store._environment.databases["quarantine"])
        for number in range(40):
            transaction.delete(b"%d" % number, db=store._environment.databases["quarantine"])

    with PeerStore(tmp_path) as store:
        store.add(record(1))
        store._environment.write(taking_and_giving_back)
        env = store._environment._env
        assert env is not None
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        assert (tmp_path / "data.mdb").stat().st_size < needed
    for mode in ("read", "own"):
        with PeerStore(tmp_path, mode) as store:
            assert store.get(peer_id(1)) == record(1)


def test_a_store_of_another_schema_is_migrated_or_refused(tmp_path: Path) -> None:
    def migration(env: Environment, transaction: Transaction) -> None:
        ran.append(transaction.stat(env.databases["peers"])["entries"])

    ran: list[int] = []
    with PeerStore(tmp_path, schema=1) as store:
        store.add(record(1))
    with pytest.raises(PeerStoreUnusable, match="nothing here can migrate schema 1 to 3"):
        PeerStore(tmp_path, schema=3, migrations={1: migration})
    with pytest.raises(PeerStoreUnusable, match="an older PartyWire wrote it"):
        PeerStore(tmp_path, "read", schema=3, migrations={1: migration, 2: migration})
    with PeerStore(tmp_path, schema=3, migrations={1: migration, 2: migration}) as store:
        assert store.get(peer_id(1)) == record(1)
    assert ran == [1, 1]
    PeerStore(tmp_path, schema=3).close()
    with pytest.raises(PeerStoreUnusable, match="a newer PartyWire wrote it"):
        PeerStore(tmp_path, schema=2)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    def failing(env: Environment, transaction: Transaction) -> None:
        transaction.drop(env.databases["peers"], delete=False)
        raise RuntimeError("half way")

    with PeerStore(tmp_path) as store:
        store.add(record(1))
    with pytest.raises(RuntimeError, match="half way"):
        PeerStore(tmp_path, schema=2, migrations={1: failing})
    with PeerStore(tmp_path) as store:
        assert store.count() == 1


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(PeerStoreUnavailable, match=r"pip install 'partywire\[node\]'"):
        PeerStore(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_party_and_every_other_command_do_without_it() -> None:
    program = (
        "import sys, partywire\n"
        "from partywire.workers import party, session, batch, cli, cli_peers\n"
        "from partywire.engine import front, gateway, io_process, supervisor\n"
        "print(*sys.modules)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = printed.stdout.split()
    assert not [
        name for name in loaded if name.startswith(("partywire.engine.peer", "partywire.workers.peer_rows", "lmdb"))
    ]
