"""How `make docs` turns these pages into a site: Sphinx, with the pages as they are (MyST) and docstrings (autodoc).

The pages are plain Markdown, so that they read well where code is hosted. What only a site needs is added here: the
table of contents, which is drawn from the links of index.md; the README, with which the index begins; and the
docstrings, which stand where a page of reference/ says `<!-- docstrings ... -->`. The one invariant: the site needs no
network, neither to be built nor to be read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The docstrings are those of the plain form, which is the specification; and so no compiler is needed.
os.environ["PARTYWIRE_CORE"] = "pure"

from pygments.lexers.special import TextLexer

from partywire.workers.cli import installed_version

if TYPE_CHECKING:
    from sphinx.application import Sphinx

README = Path(__file__).resolve().parent.parent / "README.md"

project = "PartyWire"
author = "the maintainers of PartyWire"
version = release = installed_version()
copyright = f"{author}. Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples", "_build"]
default_role = "code"

# Anchors of headings as code hosts make them.
myst_heading_anchors = 6

autodoc_member_order = "bysource"
autoclass_content = "both"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"PartyWire {version}"
html_copy_source = False
html_show_sphinx = False


def contents(index: str) -> str:
    """Tables of contents for the side of the site: one for each heading of index.md that links pages."""
    blocks = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption = section.splitlines()[0]
        pages = re.findall(r"^\| \[[^]]*\]\(([^)#:]+)\.md\)", section, flags=re.MULTILINE)
        pages = [page for page in pages if not page.startswith("..")]
        if pages:
            blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(blocks)


def docstrings(match: re.Match[str]) -> str:
    """The directives that a list of docstrings stands for: KIND NAME [OPTION[=VALUE] ...] on each line."""
    lines = []
    for line in match[1].strip().splitlines():
        kind, name, *options = line.split()
        settings = [option.partition("=") for option in options]
        lines += [f".. auto{kind}:: {name}", *(f"   :{key}: {value}" for key, _, value in settings), ""]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def front_page(index: str) -> str:
    """What the README says before it lists the pages, then the lists of index.md."""
    readme, _, _ = README.read_text().partition("\n## Learn more")
    lists = index[index.index("\n## ") :]
    return "\n\n".join([readme.replace("](docs/", "]("), lists, contents(index)])


def complete_page(app: Sphinx, name: str, content: list[str]) -> None:
    """A page as the site has it: what its plain form only points to is put in."""
    text = content[0]
    if name == "index":
        app.env.note_dependency(str(README))
        text = front_page(text)
    if "/" not in name:  # Markdown beside the pages is no page of the site; it can be read as a file
        text = re.sub(r"\[([^]]*)\]\((\.\./[^)#]+\.md)\)", r"{download}`\1 <\2>`", text)
    content[0] = re.sub(r"<!-- docstrings\n(.*?)-->", docstrings, text, flags=re.DOTALL)


def escape(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Docstrings are prose with `code` in it; a star or bar outside of code means itself."""
    del app, name, obj, options
    for index, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        lines[index] = "".join(parts)
    if what == "attribute":
        lines[:0] = ["..", ""]  # an empty comment: of a first line with a colon napoleon would make a type


def setup(app: Sphinx) -> None:
    app.add_lexer("mermaid", TextLexer)  # drawn by code hosts; its lines read well as text
    app.connect("source-read", complete_page)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
