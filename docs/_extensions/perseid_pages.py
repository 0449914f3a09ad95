"""What a page is on the site that it is not where it lies.

What stands in a comment that begins with "on the site" (tables of contents) is read. The page of the run file's fields
gets them written in at its mark. Links to pages outside of docs/ lead nowhere on the site, and become the names of
files in the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from spec_reference import reference

_HIDDEN = re.compile(r"^<!-- on the site\n(.*?)^-->", re.DOTALL | re.MULTILINE)
MARK = "<!-- fields of the run file -->"
DOCS = Path(__file__).parents[1]
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>[^)#:\s]+\.md)(?:#[^)]*)?\)")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _prepare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _prepare(_app: Any, page: str, source: list[str]) -> None:
    source[0] = _HIDDEN.sub(r"\1", source[0])
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, reference())
    source[0] = _LINK.sub(lambda link: _within(link, (DOCS / page).parent), source[0])


def _within(link: re.Match[str], directory: Path) -> str:
    target = (directory / link["path"]).resolve()
    if target.is_relative_to(DOCS):
        return link[0]
    name = f"`{target.relative_to(DOCS.parent)}`"
    return name if link["text"].strip("`") in name else f"{link['text']} ({name} in the repository)"
