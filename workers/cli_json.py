"""What a command prints with `--json`: one object on one line.

Between the commands and standard output. The one invariant: it is JSON, also where it repeats the name of a file, which
may be any bytes: those that are no UTF-8 stand as the escapes that Python's `json` reads back.
"""

from __future__ import annotations

import json
from typing import Any

import orjson


def json_text(document: dict[str, Any]) -> str:
    """The line, without its end."""
    try:
        return orjson.dumps(document).decode()
    except TypeError:
        return json.dumps(document)
