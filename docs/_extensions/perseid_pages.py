"""What a page is on the site that it is not where it lies.

What stands in a comment that begins with "on the site" (tables of contents) is read, and pages that it does not name
come where it says OTHERS. The page of the run file's fields gets them written in at its mark. Links to pages outside of
docs/ lead nowhere on the site, and become the names of files in the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from spec_reference import reference

_HIDDEN = re.compile(r"^<!-- on the site\n(.*?)^-->", re.DOTALL | re.MULTILINE)
OTHERS = "\nOTHERS\n"
MARK = "<!-- fields of the run file -->"
DOCS = Path(__file__).parents[1]
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>[^)#:\s]+\.md)(?:#[^)]*)?\)")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("env-before-read-docs", _read_again)
    app.connect("source-read", _prepare)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read_again(_app: Any, _environment: Any, pages: list[str]) -> None:
    """What depends on more than its own file: other pages, and the fields."""
    pages += [page for page in ("index", "fields") if page not in pages]


def _prepare(_app: Any, page: str, source: list[str]) -> None:
    source[0] = _HIDDEN.sub(r"\1", source[0])
    if OTHERS in source[0]:
        source[0] = source[0].replace(OTHERS, "\n" + "".join(f"{name}\n" for name in _unnamed(source[0])))
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, reference())
    source[0] = _LINK.sub(lambda link: _within(link, (DOCS / page).parent), source[0])


def _unnamed(contents: str) -> list[str]:
    """Pages beside the one with these contents that no table of contents in it names: a new page is found at once."""
    named = set(re.findall(r"^(?:.*<)?([\w/-]+)>?$", contents, re.MULTILINE))
    return sorted(page.stem for page in DOCS.glob("*.md") if page.stem not in named | {"index"})


def _within(link: re.Match[str], directory: Path) -> str:
    target = (directory / link["path"]).resolve()
    if target.is_relative_to(DOCS):
        return link[0]
    name = f"`{target.relative_to(DOCS.parent)}`"
    return name if link["text"].strip("`") in name else f"{link['text']} ({name} in the repository)"
