"""What the tests of the documentation need to know of a Markdown page: its links, anchors and blocks of code."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"


@dataclass(frozen=True)
class Block:
    """Code between fences. `language` is empty if none is named."""

    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def pages() -> list[Path]:
    """Every Markdown page of the repository."""
    found = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "perf").rglob("*.md")]
    return sorted(page for page in found if "_build" not in page.parts)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def links(page: Path) -> list[str]:
    """Targets of all links and images."""
    inline = [child for token in tokens(page) for child in token.children or ()]
    found = [
        child.attrs.get("href", child.attrs.get("src")) for child in inline if child.type in ("link_open", "image")
    ]
    return [str(target) for target in found]


def slug(heading: str) -> str:
    """The anchor that code hosts and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The anchors of all headings; repeated ones are counted."""
    stream = tokens(page)
    seen: Counter[str] = Counter()
    found = set()
    for token, inline in pairwise(stream):
        if token.type == "heading_open":
            words = (child.content for child in inline.children or () if child.type in ("text", "code_inline"))
            name = slug("".join(words))
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def blocks(page: Path) -> list[Block]:
    return [Block(token.info.strip(), token.content) for token in tokens(page) if token.type == "fence"]


def code_spans(page: Path) -> list[str]:
    """Code within text, in one line."""
    inline = [child for token in tokens(page) for child in token.children or ()]
    return [" ".join(child.content.split()) for child in inline if child.type == "code_inline"]
