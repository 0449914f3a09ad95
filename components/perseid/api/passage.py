"""Texts on their way through Kubeflow Pipelines, which hands a run's parameters to its pods as words of a template.

On that way Argo fills in what stands between `{{` and `}}`, twice, and evaluates it where it begins with `{{=`; KFP's
launcher fills in `{{$...}}`; the kubelet takes `$(NAME)` in a container's arguments for a variable and `$$` for `$`;
Argo writes DEL in a way that is no JSON; and KFP's database has no characters beyond the Basic Multilingual Plane. None
of it tells a text from a template or has a way to quote. So nothing that means anything to them may be in a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MARK = "\N{SYMBOL FOR ESCAPE}"
"""Begins what stands for something else: `MARK -` for nothing, `MARK hex;` for a character."""

_MEANING = re.compile(
    rf"\{{(?=\{{)"  # the first of two braces
    rf"|\$(?=[$(])"
    rf"|[{MARK}\x7f\U00010000-\U0010ffff]"
)
_MARKED = re.compile(rf"{MARK}(?:-|([0-9a-f]{{1,6}});)")


def wrap(value: Any) -> Any:
    """The same data with texts, names of fields included, that come through KFP as they are. Most texts stay as they
    are. Raises nothing: every text can be wrapped."""
    return _texts(value, lambda text: _MEANING.sub(_mark, text))


def unwrap(value: Any) -> Any:
    """What `wrap` was given. Of data that nobody wrapped, what has no MARK stays."""
    return _texts(value, lambda text: _MARKED.sub(_unmark, text))


def _mark(found: re.Match[str]) -> str:
    text = found.group()
    return f"{text}{MARK}-" if text in "{$" else f"{MARK}{ord(text):x};"


def _unmark(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else ""


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {change(key): _texts(inner, change) for key, inner in value.items()}
        case list():
            return [_texts(inner, change) for inner in value]
        case _:
            return value
