"""What is done to texts so that nothing on the way through Kubeflow Pipelines takes them for its own.

What stands there reads them is modelled below, from the sources of Argo 4.0.5, Kubernetes 1.34 and KFP 2.17.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.passage import MARK, unwrap, wrap
from perseid.api.spec import EvolutionRun

PARTS = ["{", "}", "$", "(", ")", MARK, "-", ";", "a", "=", "\\", '"', "\x7f", "\N{ROCKET}", "$.inputs"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join) | st.text(st.characters(exclude_categories=["Cs"]))
DATA = st.recursive(
    TEXTS | st.booleans() | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def kubelet(argument: str, variables: dict[str, str]) -> str:
    """A container's argument, expanded."""
    return re.sub(r"\$(?:\$|\(([^)]*)\))", lambda found: _expanded(found, variables), argument)


def _expanded(found: re.Match[str], variables: dict[str, str]) -> str:
    return "$" if found[1] is None else variables.get(found[1], found.group())


def argo(value: str) -> str:
    """A template's value, with a replacement for all that stands in braces. Argo writes it as Go quotes strings."""
    for quoted in re.findall(r"[\x7f\U00010000-\U0010ffff]", value):
        raise ValueError(f"{quoted!r} is written as Go writes it, which is no JSON")
    return re.sub(r"\{\{.*?\}\}", "REPLACED", value)


@given(DATA)
def test_what_comes_out_is_what_went_in(data: Any) -> None:
    assert unwrap(wrap(data)) == data


@given(DATA)
def test_nothing_on_the_way_finds_anything_of_its_own(data: Any) -> None:
    sent = json.dumps({"parameters": {"run": wrap(data)}}, ensure_ascii=False, separators=(",", ":"))
    assert kubelet(argo(sent), {"a": "EXPANDED", "": "EXPANDED"}) == sent
    assert "{{" not in sent
    assert max(sent.encode()) < 0xF0, "KFP's database takes characters of three bytes"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"{{${MARK}\x7f", max_codepoint=0xFFFF)))
def test_a_text_without_anything_special_stays_readable_as_it_is(text: str) -> None:
    assert wrap(text) == text


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("{{workflow.name}}", f"{{{MARK}-{{workflow.name}}}}"),
        ("{{{", f"{{{MARK}-{{{MARK}-{{"),
        ("f'{x}'", "f'{x}'"),
        ("$$x^2$$ costs $5", f"${MARK}-$x^2${MARK}-$ costs $5"),
        ("$(HOME)", f"${MARK}-(HOME)"),
        ("\N{ROCKET}", f"{MARK}1f680;"),
        (MARK, f"{MARK}241b;"),
    ],
)
def test_what_would_be_taken_for_a_template_is_parted(text: str, wrapped: str) -> None:
    assert wrap(text) == wrapped


@given(TEXTS.filter(bool))
def test_an_attempt_comes_through_whatever_its_texts_are(text: str) -> None:
    run = EvolutionRun.model_validate(
        {
            "metadata": {"name": "r"},
            "spec": {"model": {"ref": text}, "conversion": {"instructions": [f"Answer {text}"]}},
        }
    )
    attempt = Attempt(run=run, run_id="i", generation=1, number=2, storage=text, start_model=text)
    assert Attempt.of_arguments(attempt.arguments()) == attempt


def test_labels_and_annotations_are_no_business_of_a_stage_s() -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 9000}
    metadata = {"name": "r", "labels": {"team": "a"}, "annotations": applied}
    run = EvolutionRun.model_validate({"metadata": metadata, "spec": {}})
    attempt = Attempt(run=run, run_id="i", generation=0, number=0, storage="/s", start_model="m")
    bare = replace(attempt, run=EvolutionRun.model_validate({"metadata": {"name": "r"}, "spec": {}}))
    assert attempt.arguments() == bare.arguments()
