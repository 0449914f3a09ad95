"""Which code an answer holds."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.data.code import Extraction, extract_code

F = "def f(x):\n    return x"


def block(code: str, info: str = "python") -> str:
    return f"```{info}\n{code}\n```\n"


@pytest.mark.parametrize(
    ("answer", "entry_point", "code"),
    [
        (f"Here:\n{block(F)}Done.", "f", F + "\n"),
        (block("g = 1") + block(F), "f", F + "\n"),
        (block("def (", "") + block(F), "f", F + "\n"),
        (block(F) + "```python\ndef f(x", "f", F + "\n"),
        (block(F) + block("def f(x):\n    return 0"), "f", F + "\n"),
        (block("f = lambda x: x"), "f", "f = lambda x: x\n"),
        (block("pip install x", "bash") + block(F), "f", F + "\n"),
        ("1. So:\n   ```python\n   def f(x):\n       return x\n   ```", "f", F + "\n"),
        (block(F).replace("\n", "\r\n"), "f", F + "\n"),
        (f"~~~~\n{F}\n~~~~", "f", F + "\n"),
        (F, "f", F + "\n"),
        (block("print(1)") + block("class C: pass"), "", "class C: pass\n"),
    ],
)
def test_the_first_complete_block_that_defines_the_function_is_taken(answer: str, entry_point: str, code: str) -> None:
    assert extract_code(answer, entry_point) == Extraction(code)


@pytest.mark.parametrize(
    ("answer", "entry_point", "reason"),
    [
        ("I would return x.", "f", "no-code-block"),
        ("", "", "no-code-block"),
        ("x", "", "no-code-block"),
        (f"```python\n{F}", "f", "unclosed-code-block"),
        (f"```python\n{F}```", "f", "unclosed-code-block"),
        (block("def f(x)\n  return"), "f", "does-not-parse"),
        (block("return 1"), "", "does-not-parse"),
        (block("x = '\0'"), "", "does-not-parse"),
        (block("(" * 500 + ")" * 500), "", "does-not-parse"),
        (block(F), "g", "does-not-define-g"),
        (block("class C:\n    def f(self): pass"), "f", "does-not-define-f"),
        (block("print(1)"), "", "does-not-define-anything"),
    ],
)
def test_an_answer_without_code_says_why(answer: str, entry_point: str, reason: str) -> None:
    assert extract_code(answer, entry_point) == Extraction(None, reason)


@given(st.text(), st.sampled_from(["", "f", "g"]))
def test_any_text_gives_code_that_parses_or_a_reason(answer: str, entry_point: str) -> None:
    found = extract_code(answer, entry_point)
    assert (found.code is None) == bool(found.reason)
    if found.code is not None:
        ast.parse(found.code)


prose = st.text(st.characters(codec="utf-8", exclude_characters="`~\r"), max_size=60)


@given(prose, prose, st.sampled_from(["", "py", "python", "python3 title"]))
def test_prose_around_a_block_changes_nothing(before: str, after: str, info: str) -> None:
    assert extract_code(f"{before}\n{block(F, info)}{after}", "f") == Extraction(F + "\n")


@given(st.integers(min_value=0, max_value=len(block(F)) - 5))
def test_a_cut_answer_never_gives_code(length: int) -> None:
    assert extract_code(block(F)[:length], "f").code is None
