"""Write the tables of docs/*.md that are drawn from the code: `python docs/tables.py`. A test fails when one is stale.

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from partywire.engine import connection, frames
from partywire.engine.errors import RejectCode
from partywire.workers.objects.limits import ObjectLimits
from partywire.workers.objects.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).resolve().parent


def frame_table() -> str:
    lines = ["| byte | name | scope | length field | body |", "| --- | --- | --- | --- | --- |"]
    for spec in sorted(frames.FRAME_TABLE, key=lambda spec: spec.descriptor):
        if spec.fixed_size is not None:
            length = f"none; {spec.fixed_size} bytes follow"
        elif spec.length_in_bits:
            length = f"bits, at most {spec.length_max:,}"
        else:
            step = f", a multiple of {spec.element_size}" if spec.element_size > 1 else ""
            length = f"bytes, {spec.length_min} to {spec.length_max:,}{step}"
        scope = "link" if spec.link_scope else "session"
        lines.append(f"| {spec.descriptor:02X} | {spec.descriptor.name} | {scope} | {length} | {spec.body} |")
    return "\n".join(lines)


def reject_codes() -> str:
    return "\n".join(["| code | name |", "| --- | --- |", *(f"| {code.value} | {code.name} |" for code in RejectCode)])


def connection_diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    for (state, event), target in connection.TRANSITIONS.items():
        lines.append(f"    {state.name} --> {target.name} : {event.name}")
    return "\n".join([*lines, "```"])


def object_limits() -> str:
    lines = ["| limit | at first | what it bounds |", "| --- | --- | --- |"]
    source = inspect.getsource(ObjectLimits)
    for field in fields(ObjectLimits):
        text = re.search(rf'{field.name}: int = .*?\n    """(.*?)"""', source, re.DOTALL)
        assert text is not None
        lines.append(f"| `{field.name}` | {getattr(ObjectLimits(), field.name):,} | {' '.join(text[1].split())} |")
    return "\n".join(lines)


def object_operations() -> str:
    lines = ["| byte | what follows: what it is |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{byte.decode()}` | {text} |" for byte, text in OPERATIONS)])


TABLES: dict[str, Callable[[], str]] = {
    "frames": frame_table,
    "reject codes": reject_codes,
    "connection": connection_diagram,
    "object limits": object_limits,
    "object operations": object_operations,
}


def with_fresh_tables(text: str) -> str:
    """The page with each of its tables drawn anew."""

    def fresh(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table ([a-z ]+) -->\n.*?<!-- end -->", fresh, text, flags=re.DOTALL)


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        page.write_text(with_fresh_tables(page.read_text()))


if __name__ == "__main__":
    main()
