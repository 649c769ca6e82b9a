"""How contenders look: one colour, marker and dash each, the same in every plot of every page.

Colour is never alone: the marker tells two contenders apart as well, and every line carries its name. PartyWire's own
rows share one hue and thick lines, rivals have the others, floors are grey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..contender import CONTENDERS
from .markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .rows import Row

OURS_COLOUR: Final = "ours"
FLOOR_COLOUR: Final = "floor"

# For light and dark paper, each at least 3:1 against it. Neighbours differ in lightness too, for readers who do not see
# all hues.
COLOURS: Final[dict[str, tuple[str, str]]] = {
    OURS_COLOUR: ("#0b57d0", "#7cb0ff"),
    FLOOR_COLOUR: ("#757575", "#9b9b9b"),
    "r0": ("#d1490b", "#ff8d57"),
    "r1": ("#8f6a00", "#e3b341"),
    "r2": ("#00805a", "#45c99a"),
    "r3": ("#c2338a", "#f78fc8"),
    "r4": ("#6f3fa0", "#c4a0f0"),
    "r5": ("#6d4c33", "#c9a283"),
    "r6": ("#007f99", "#4ecbe3"),
    "r7": ("#567300", "#acd04f"),
}
RIVAL_COLOURS: Final = tuple(name for name in COLOURS if name.startswith("r"))


@dataclass(frozen=True, slots=True)
class Look:
    """Of one contender."""

    key: str
    """A name for style sheets, which contenders' own names are not."""
    colour: str
    marker: str
    dash: str | None
    summary: str


def polygon(corners: int, radius: float, turn: float = 0.0) -> str:
    """A path around the origin, its first corner `turn` full turns clockwise from the top."""
    angles = [2 * math.pi * (turn + corner / corners) for corner in range(corners)]
    points = [f"{radius * math.sin(angle):.1f} {-radius * math.cos(angle):.1f}" for angle in angles]
    return f"M{'L'.join(points)}Z"


CIRCLE: Final = "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0Z"
SHAPES: Final[dict[str, str]] = {
    "circle": CIRCLE,
    "square": polygon(4, 4.5, 1 / 8),
    "diamond": polygon(4, 4.9),
    "up": polygon(3, 4.9),
    "down": polygon(3, 4.9, 1 / 2),
    "star": "M0 -5.4L1.4 -1.6L5.2 -1.5L2.2 .9L3.2 4.6L0 2.4L-3.2 4.6L-2.2 .9L-5.2 -1.5L-1.4 -1.6Z",
    "hexagon": polygon(6, 4.5),
    "left": polygon(3, 4.9, 3 / 4),
    "right": polygon(3, 4.9, 1 / 4),
}
# `-o` is the shape hollow. Within a family no two contenders share a mark before there are more of them than marks.
OUR_MARKERS: Final = ("circle", "circle-o", "hexagon", "hexagon-o")
RIVAL_MARKERS: Final = ("square", "diamond", "up", "down", "star", "left", "right", "square-o", "left-o", "right-o")
FLOOR_MARKERS: Final = ("up-o", "down-o", "diamond-o", "star-o")
OUR_DASHES: Final = (None, "7 3", "2 3")
RIVAL_DASHES: Final = (None, "5 3", "9 3 2 3")
FLOOR_DASH: Final = "1.5 3"


def looks(rows: Iterable[Row]) -> dict[str, Look]:
    """By name, in the order of the key: ours, rivals, floors; within each as listed in CONTENDERS, then all others."""
    kinds = {row.contender: (row.is_ours, row.is_floor) for row in rows}
    listed = list(CONTENDERS)
    names = [*listed, *sorted(name for name in kinds if name not in CONTENDERS)]
    chosen: dict[str, list[tuple[str, Look]]] = {OURS_COLOUR: [], "rivals": [], FLOOR_COLOUR: []}
    for number, name in enumerate(names):
        key = f"c{number}"
        known = CONTENDERS.get(name)
        is_ours, is_floor = kinds.get(name, (known is not None and known.is_ours, False))
        summary = known.summary if known else ""
        family = chosen[OURS_COLOUR if is_ours else FLOOR_COLOUR if is_floor else "rivals"]
        at = len(family)
        if is_ours:
            look = Look(key, OURS_COLOUR, OUR_MARKERS[at % 4], OUR_DASHES[at % 3], summary)
        elif is_floor:
            look = Look(key, FLOOR_COLOUR, FLOOR_MARKERS[at % 4], FLOOR_DASH, summary)
        else:
            colour = RIVAL_COLOURS[at % len(RIVAL_COLOURS)]
            dash = RIVAL_DASHES[at // len(RIVAL_COLOURS) % len(RIVAL_DASHES)]
            look = Look(key, colour, RIVAL_MARKERS[at % len(RIVAL_MARKERS)], dash, summary)
        family.append((name, look))
    return {name: look for family in chosen.values() for name, look in family if name in kinds}


def marker(look: Look, x: float, y: float) -> Markup:
    """The contender's mark at a place of a plot; `marker_shapes` must be on the same page."""
    shape = look.marker.removesuffix("-o")
    return element("use", href=f"#m-{shape}", x=x, y=y, class_=None if shape == look.marker else "o")


def marker_shapes() -> Markup:
    """The shapes that `marker` refers to, drawn nowhere."""
    shapes = [element("path", id=f"m-{name}", d=path) for name, path in SHAPES.items()]
    return element("svg", element("defs", *shapes), class_="shapes", aria_hidden="true", width=0, height=0)


def swatch(look: Look) -> Markup:
    """Line and marker for the key and for tables."""
    line = element("path", d="M1 6H25", stroke_dasharray=look.dash)
    drawing = element("g", line, marker(look, 13, 6), class_=f"s {look.colour}")
    return element("svg", drawing, class_="swatch", viewBox="0 0 26 12", width=26, height=12, aria_hidden="true")
