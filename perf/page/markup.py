"""HTML and SVG as strings in which nothing is markup unless this module made it.

Rows come from files that anybody may have written. A plain `str` is therefore text wherever it is put and is escaped
there; only a `Markup`, which `element` and `text` return, goes in as it stands.
"""

from __future__ import annotations

from html import escape
from typing import Final

# Elements that are written as `<path/>`: SVG shapes without children. In HTML the slash means nothing.
EMPTY: Final = frozenset({"path", "line", "circle", "rect", "use", "meta"})

# What HTML forbids in a document whatever its escape; a tab or a line break is as good as a space here.
FORBIDDEN: Final = {code: " " if code in (9, 10, 13) else "\N{REPLACEMENT CHARACTER}" for code in range(32)}


class Markup(str):
    """A string that is markup already. Made here and nowhere else."""

    __slots__ = ()


def text(value: str) -> Markup:
    """`value` as text, for contents and for attributes in double quotes."""
    return value if isinstance(value, Markup) else Markup(escape(value.translate(FORBIDDEN), quote=True))


def element(name: str, /, *children: str | None, **attributes: str | float | None) -> Markup:
    """One element. Attributes and children that are None are left out; `stroke_width` and `class_` are written as
    `stroke-width` and `class`, and coordinates with one decimal, which is finer than a pixel.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{number(value) if isinstance(value, (int, float)) else text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Markup:
    """The children one after the other."""
    return Markup("".join(text(child) for child in children if child is not None))


def number(value: float) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")
