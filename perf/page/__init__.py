"""The HTML page of `partywire perf --html FILE`: one file with inline styles and plots that opens without a network."""

from .document import render_page, write_page

__all__ = ["render_page", "write_page"]
