"""How players of substreams are started and compared. What they print is never judged here."""

from __future__ import annotations

import sys

import pytest

from partywire.perf.substreams.__main__ import CASES, GO, LIBP2P, OURS, Player, PlayFailed, measure, play

SAYS = "import sys; print({answer!r} if sys.argv[1] == 'dial' else 1)"


def player(name: str, rate: float) -> Player:
    """One that needs no network: it says its rates at once."""
    answer = "{" + ", ".join(f'"{case}": {rate}' for case in CASES) + "}"
    return Player(name, (sys.executable, "-c", SAYS.format(answer=answer)))


def test_ours_is_compared_with_each_other_one_in_turns() -> None:
    found = measure([player(OURS, 100.0), player(LIBP2P, 4.0), player(GO, 400.0)], 2, 0.01)
    figures = {figure.name: figure for figure in found}
    assert figures["64 B messages, partywire"].samples == (100.0, 100.0)
    assert figures["ping-pong, partywire"].samples == (10_000.0, 10_000.0)  # us
    to_libp2p, to_go = (figures[f"64 B messages, ratio to {name}"] for name in (LIBP2P, GO))
    assert (to_libp2p.samples, to_libp2p.target, to_libp2p.met) == ((25.0, 25.0), 20.0, True)
    assert (to_go.samples, to_go.target, to_go.met) == ((0.25, 0.25), 0.5, False)
    assert figures[f"open and close, ratio to {LIBP2P}"].met is None


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("/nowhere/python",), "cannot be started"),
        ((sys.executable, "-c", "raise SystemExit('no such library')"), "no such library"),
        ((sys.executable, "-c", "import sys; sys.argv[1] == 'dial' and sys.exit('lost'); print(1)"), "lost"),
    ],
)
def test_a_player_that_fails_says_why(command: tuple[str, ...], what: str) -> None:
    with pytest.raises(PlayFailed, match=what):
        play(Player(LIBP2P, command), 0.01)
