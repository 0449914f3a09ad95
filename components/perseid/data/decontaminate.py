"""Finds training samples that resemble an evaluation problem, so that no score is one of memory.

Four tests, on words (letters, digits and `_`, lower case, so that case, spacing and punctuation do not matter):

- the statements are the same once templates ("Write a function f(x) that", "For example, ...") are gone;
- the statements are alike by characters, from `similarity` on, and speak of the same numbers: "x plus 3" and "x plus 5"
  are two problems, however alike;
- `ngram` words in a row are in both statements or in both codes. Runs that three or more evaluation items share are the
  style of the set and say nothing of one item; they do not count;
- the codes are the same up to layout, comments and docstrings, the function's name included.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rapidfuzz import fuzz

from perseid.api.synthesis import DecontaminationSpec
from perseid.data.code import fenced_blocks
from perseid.data.prompts import INSTRUCTION
from perseid.data.records import Problem

Kind = Literal["same-statement", "similar-statement", "statement-ngram", "code-ngram", "same-code"]

_STYLE_ITEMS = 3
_MIN_WORDS = 3
_EVIDENCE_CHARACTERS = 300
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")
_TEMPLATES = re.compile(
    r"write an? (?:python )?function(?: (?:called|named) \w+)?(?: \w+\([^)]*\))?(?: that| to| which)?\b"
    r"|complete the function \w+\. write the whole function, with its first line\."
    r"|the function is called \w+\.|for example,(?: this holds:)?|```(?:python)?|" + re.escape(INSTRUCTION.lower())
)
_EXAMPLE = re.compile(r"for example.*|the function is called.*|>>>.*|\bexamples?\s*:.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Hit:
    """A sample that resembles an evaluation problem. At most one for each pair, the first kind that applies."""

    sample_id: str
    evaluation_set: str
    problem_id: str
    kind: Kind
    evidence: str
    """What both share, or how alike they are."""


@dataclass(frozen=True, slots=True)
class _Item:
    evaluation_set: str
    problem: Problem
    text: str
    """The statement's words."""
    numbers: frozenset[str]


@dataclass(slots=True)
class _Index:
    items: list[_Item] = field(default_factory=list)
    cores: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    codes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    statement_runs: dict[tuple[str, ...], list[int]] = field(default_factory=lambda: defaultdict(list))
    code_runs: dict[tuple[str, ...], list[int]] = field(default_factory=lambda: defaultdict(list))


def decontaminate(
    samples: Sequence[tuple[str, str, str]], evaluation: Mapping[str, Sequence[Problem]], spec: DecontaminationSpec
) -> list[Hit]:
    """Compare samples, each (id, statement, code), with all problems of all evaluation sets.

    The statement is the problem's own, without a user's instruction around it. Hits come in the order of the samples.
    """
    index = _index(evaluation, spec.ngram)
    about_statement: dict[str, dict[int, tuple[Kind, str]]] = {}  # many samples answer the same problem
    hits: list[Hit] = []
    for sample_id, statement, code in samples:
        if statement not in about_statement:
            about_statement[statement] = dict(_statement_hits(statement, index, spec))
        found = dict(about_statement[statement])
        for number, reason in _code_hits(code, index, spec.ngram):
            found.setdefault(number, reason)
        for number, (kind, evidence) in sorted(found.items()):
            item = index.items[number]
            hits.append(Hit(sample_id, item.evaluation_set, item.problem.id, kind, evidence[:_EVIDENCE_CHARACTERS]))
    return hits


def _index(evaluation: Mapping[str, Sequence[Problem]], ngram: int) -> _Index:
    index = _Index()
    for title, problems in evaluation.items():
        for problem in problems:
            number = len(index.items)
            core = _core(problem.statement)
            numbers = frozenset(_NUMBER.findall(core))
            index.items.append(_Item(title, problem, " ".join(_words(problem.statement)), numbers))
            for text in {core, _docstring_core(problem)}:
                if len(text.split()) >= _MIN_WORDS:
                    index.cores[text].append(number)
            for run in set(_runs(_words(_TEMPLATES.sub(" ", problem.statement.lower())), ngram)):
                index.statement_runs[run].append(number)
            for run in set(_runs(_words(problem.reference), ngram)):
                index.code_runs[run].append(number)
            if problem.reference and (plain := _plain_code(problem.reference)):
                index.codes[plain].append(number)
    return index


def _statement_hits(statement: str, index: _Index, spec: DecontaminationSpec) -> Iterator[tuple[int, tuple[Kind, str]]]:
    found: dict[int, tuple[Kind, str]] = {}
    core, text = _core(statement), " ".join(_words(statement))
    for number in index.cores.get(core, ()):
        found[number] = ("same-statement", core)
    numbers = frozenset(_NUMBER.findall(core))
    for number, item in enumerate(index.items):
        if number not in found and item.numbers == numbers:
            alike = fuzz.ratio(text, item.text, score_cutoff=100 * spec.similarity) / 100
            if alike >= spec.similarity:
                found[number] = ("similar-statement", f"{alike:.2f} alike: {item.problem.statement}")
    words = _words(_TEMPLATES.sub(" ", statement.lower()))
    for number, run in _shared_runs(words, index.statement_runs, spec.ngram):
        found.setdefault(number, ("statement-ngram", run))
    yield from found.items()


def _code_hits(code: str, index: _Index, ngram: int) -> Iterator[tuple[int, tuple[Kind, str]]]:
    plain = _plain_code(code)
    for number in index.codes.get(plain, ()) if plain else ():
        yield number, ("same-code", plain)
    for number, run in _shared_runs(_words(code), index.code_runs, ngram):
        yield number, ("code-ngram", run)


def _shared_runs(words: list[str], runs: Mapping[tuple[str, ...], list[int]], ngram: int) -> Iterator[tuple[int, str]]:
    for run in _runs(words, ngram):
        numbers = runs.get(run, ())
        if len(numbers) < _STYLE_ITEMS:
            for number in numbers:
                yield number, " ".join(run)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])


def _core(statement: str) -> str:
    """What is asked, without template and examples, as words."""
    without_examples = _EXAMPLE.sub(" ", statement.lower())
    return " ".join(_words(_TEMPLATES.sub(" ", without_examples)))


def _docstring_core(problem: Problem) -> str:
    """What the docstring asks, where the statement is code to complete."""
    for block in fenced_blocks(problem.statement)[0]:
        for node in _parsed(block):
            if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point:
                return _core(ast.get_docstring(node) or "")
    return ""


def _plain_code(code: str) -> str:
    """Code without comments, layout and docstrings; empty where it does not parse."""
    body = _parsed(code)
    for node in body:
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    try:
        return "\n".join(ast.unparse(node) for node in body)
    except (RecursionError, ValueError):  # a sum of hundreds of terms, an endless number: no reference looks like that
        return ""


def _parsed(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # only what compiles can equal a reference
        return []
