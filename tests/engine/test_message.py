"""Messages are values: made of their fields by place or by name, equal by type and fields, never changed."""

from __future__ import annotations

import pytest

from partywire.engine.commands import Accepted, Close, LinkFailed, LinkNews, Serve, Stopped
from partywire.engine.message import ControlMessage, replaced


class Pair(ControlMessage):
    left: int
    right: str = "right"


class Twin(ControlMessage):
    left: int
    right: str = "right"


def test_fields_are_given_by_place_or_by_name_and_defaults_fill_the_rest() -> None:
    assert Pair(1) == Pair(left=1) == Pair(1, "right") == Pair(right="right", left=1)
    assert (Pair(1).left, Pair(1).right, Pair(1, right="other").right) == (1, "right", "other")
    match LinkFailed(2, "TIMEOUT", "too late"):
        case LinkFailed(peer, message=message):
            assert (peer, message) == (2, "too late")


def test_messages_are_equal_by_type_and_fields() -> None:
    assert Pair(1) != Pair(2)
    assert Pair(1) != Twin(1)
    assert Pair(1) != (1, "right")
    assert len({Pair(1), Pair(1, "right"), Twin(1)}) == 2
    assert Close() == Close()
    assert Stopped([]) != Stopped(["a complaint"])


@pytest.mark.parametrize(
    ("values", "named", "complaint"),
    [
        ((), {}, "Pair lacks left"),
        ((1, "a", 2), {}, "Pair has 2 fields, 3 are given"),
        ((1,), {"left": 1}, "Pair is given left twice"),
        ((1,), {"wrong": 1}, "Pair has no field wrong"),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    values: tuple[object, ...], named: dict[str, object], complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        Pair(*values, **named)  # type: ignore[arg-type]


def test_a_message_does_not_change() -> None:
    pair = Pair(1)
    with pytest.raises(AttributeError, match="left of a Pair cannot be changed"):
        pair.left = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="left of a Pair cannot be taken away"):
        del pair.left
    news = LinkNews(1, "closed", "", "it broke")
    assert replaced(news, dropped=3) == LinkNews(1, "closed", "", "it broke", 3)
    assert news.dropped == 0


def test_bytes_do_not_show() -> None:
    assert repr(Accepted(b"secret", "10.0.0.2:7")) == "Accepted(address='10.0.0.2:7')"
    assert "secret" not in repr(Accepted(b"secret", ""))
    assert Serve.__match_args__[:3] == ("party", "peers", "listeners")
