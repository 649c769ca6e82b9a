"""Every link of every page leads to a file, and to a heading of it. Nothing is built and no network is used."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tests.docs.markdown import DOCS, ROOT, anchors, links, page_id, pages, slug

if TYPE_CHECKING:
    from pathlib import Path


def fault_of(page: Path, target: str) -> str | None:
    """What is wrong with a link of a page; None if nothing is."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        is_whole = parts.scheme == "https" and "." in parts.netloc and " " not in target
        return None if is_whole else "links outside begin with https:// and name a host"
    file = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
    if not file.is_relative_to(ROOT):
        return "leads out of the repository"
    if not file.exists():
        return "there is no such file"
    if parts.fragment and file.suffix == ".md" and parts.fragment not in anchors(file):
        return f"{page_id(file)} has no heading #{parts.fragment}; it has {', '.join(sorted(anchors(file)))}"
    return None


def test_every_link_leads_somewhere() -> None:
    seen = [(page, target) for page in pages() for target in links(page)]
    faults = [
        f"{page_id(page)} links to {target}: {fault}" for page, target in seen if (fault := fault_of(page, target))
    ]
    assert not faults
    assert len(seen) > 100


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = DOCS / "wire.md"
    for target in ("wire.md#frames", "#frames", "examples/hello.py", "https://example.org/page"):
        assert fault_of(page, target) is None
    for target, fault in {
        "wire.md#no-such-heading": "no heading",
        "#no-such-heading": "no heading",
        "no-such-page.md": "no such file",
        "../../etc/passwd": "out of the repository",
        "http://example.org/page": "https://",
        "https://example": "https://",
    }.items():
        assert fault in (fault_of(page, target) or "")


def test_anchors_are_those_of_code_hosts() -> None:
    assert slug("What happens to links: on_event") == "what-happens-to-links-on_event"
    assert slug("1. Two cores: plain Python, and compiled") == "1-two-cores-plain-python-and-compiled"


def test_the_index_names_every_page_and_the_front_page_the_index() -> None:
    listed = {(DOCS / target).resolve() for target in links(DOCS / "index.md")}
    missing = [page_id(page) for page in DOCS.rglob("*.md") if page not in listed and page.name != "index.md"]
    assert not missing
    assert "docs/index.md" in links(ROOT / "README.md")
