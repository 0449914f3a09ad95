from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.api.synthesis import ConversionSpec, GateSpec
from perseid.data.records import Candidate, Problem
from perseid.engines.protocol import Completion
from perseid.stages.coder import read_code
from perseid.stages.errors import StageError
from perseid.stages.gate import Sorted, normal_code, sort_candidates

PROBLEMS = {
    "tested": Problem(id="tested", statement="Double x.", entry_point="f", tests=("assert f(1) == 2",)),
    "open": Problem(id="open", statement="Do something."),
}


def candidate(name: str, problem: str = "tested", **known: Any) -> Candidate:
    fields = {"code": f"def f(x):\n    return {name!r}\n", "truncated": False, "mean_logprob": -0.5, **known}
    return Candidate(
        id=name, problem_id=problem, plan_index=0, sample_index=0, plan=("Double it.",), answer="", **fields
    )


def conversion(limit: int = 100, **gate: Any) -> ConversionSpec:
    return ConversionSpec(max_per_problem=limit, gate=GateSpec(**gate))


def kept(result: Sorted) -> list[str]:
    return [one.id for one in result.kept]


def why(result: Sorted) -> dict[str, str]:
    return {one.id: one.reason for one in result.dropped}


CODES = st.sampled_from([None, "x = 1\n", "x = 1  # again\n", "x = 2\n", "def f(x):\n    return x\n"])
CANDIDATES = st.lists(
    st.builds(
        lambda code, problem, passed, logprob: (code, problem, passed, logprob),
        CODES,
        st.sampled_from(list(PROBLEMS)),
        st.sampled_from([True, False, None]),
        st.floats(-9, 0),
    ),
    max_size=30,
)
GATES = st.builds(
    GateSpec,
    type=st.sampled_from(["tests", "likelihood", "ladder", "none"]),
    without_tests=st.sampled_from(["drop", "likelihood", "ladder", "keep"]),
    keep_fraction=st.floats(0.01, 1.0),
)


@given(CANDIDATES, GATES, st.integers(1, 4))
def test_s14_every_answer_is_kept_or_dropped_with_one_reason(rows: list[Any], gate: GateSpec, limit: int) -> None:
    answers = [
        candidate(f"{place}", problem, code=code, passed=passed, mean_logprob=logprob, reason="" if code else "no-code")
        for place, (code, problem, passed, logprob) in enumerate(rows)
    ]
    result = sort_candidates(answers, PROBLEMS, ConversionSpec(max_per_problem=limit, gate=gate))

    assert Counter([*kept(result), *why(result)]) == Counter(one.id for one in answers)
    assert all(why(result).values())
    yields = result.yields
    assert yields.total == len(answers)
    assert yields.kept + sum(yields.dropped.values()) == yields.total
    assert max(Counter(one.problem_id for one in result.kept).values(), default=0) <= limit
    forms = Counter((one.problem_id, normal_code(one.code or "")) for one in result.kept)
    assert set(forms.values()) <= {1}
    assert [int(name) for name in kept(result)] == sorted(map(int, kept(result))), "the order of the answers is lost"
    if gate.type == "tests":
        assert all(one.passed for one in result.kept if one.problem_id == "tested")


def test_s16_only_what_passes_its_tests_is_kept_and_the_rest_says_how_it_failed() -> None:
    answers = [
        candidate("right", passed=True),
        candidate("wrong", passed=False, reason="failed: AssertionError"),
        candidate("unknown", passed=None),
    ]
    result = sort_candidates(answers, PROBLEMS, conversion())
    assert kept(result) == ["right"]
    assert why(result) == {"wrong": "tests-failed", "unknown": "tests-failed"}
    assert {one.id: one.detail for one in result.dropped}["wrong"] == "failed: AssertionError"


@pytest.mark.parametrize(
    ("policy", "names", "reasons"),
    [
        ("drop", [], {"a": "no-tests", "b": "no-tests"}),
        ("keep", ["a", "b"], {}),
        ("likelihood", ["b"], {"a": "less-likely"}),
        ("ladder", ["a"], {"b": "low-score"}),
    ],
)
def test_answers_without_tests_go_the_way_that_the_spec_says(
    policy: Literal["drop", "keep", "likelihood", "ladder"], names: list[str], reasons: dict[str, str]
) -> None:
    answers = [
        candidate("a", "open", mean_logprob=-2.0, score=9.0),
        candidate("b", "open", mean_logprob=-1.0, score=3.0),
    ]
    result = sort_candidates(answers, PROBLEMS, conversion(without_tests=policy, keep_fraction=0.5))
    assert kept(result) == names
    assert why(result) == reasons


def test_the_likelihood_gate_keeps_the_likeliest_share_whatever_the_tests_say() -> None:
    answers = [candidate(f"a{n}", mean_logprob=-float(n), passed=False) for n in range(8)]
    result = sort_candidates(answers, PROBLEMS, conversion(type="likelihood", keep_fraction=0.25))
    assert kept(result) == ["a0", "a1"]


def test_the_ladder_gate_keeps_what_reaches_the_score_and_never_what_has_none() -> None:
    answers = [candidate("well", score=8.0), candidate("badly", score=7.9), candidate("unasked", score=None)]
    result = sort_candidates(answers, PROBLEMS, conversion(type="ladder", min_score=8.0))
    assert kept(result) == ["well"]
    assert why(result) == {"badly": "low-score", "unasked": "no-score"}


def test_the_likelihood_gate_keeps_one_answer_at_least() -> None:
    result = sort_candidates([candidate("a")], PROBLEMS, conversion(type="likelihood", keep_fraction=0.01))
    assert kept(result) == ["a"]


def test_the_likelihood_gate_without_likelihoods_stops_and_says_what_to_set() -> None:
    answers = [candidate("a"), candidate("b", mean_logprob=None)]
    with pytest.raises(StageError, match=r"conversion\.gate\.type"):
        sort_candidates(answers, PROBLEMS, conversion(type="likelihood"))


def test_answers_without_likelihoods_pass_the_other_gates_in_the_order_of_their_ids() -> None:
    answers = [candidate(name, mean_logprob=None, passed=True) for name in ("c", "a", "b")]
    assert kept(sort_candidates(answers, PROBLEMS, conversion(limit=2))) == ["a", "b"]


def test_a_problem_keeps_its_likeliest_distinct_answers() -> None:
    answers = [
        candidate("unlikely", passed=True, mean_logprob=-3.0),
        candidate("copy", passed=True, mean_logprob=-2.0, code="def f(x):\n  # the same\n  return  2*x"),
        candidate("likely", passed=True, mean_logprob=-1.0, code="def f(x):\n    return 2 * x\n"),
        candidate("second", passed=True, mean_logprob=-2.5),
    ]
    result = sort_candidates(answers, PROBLEMS, conversion(limit=2))
    assert kept(result) == ["likely", "second"]
    assert why(result) == {"copy": "duplicate", "unlikely": "enough-of-this-problem"}


def test_the_same_code_for_two_problems_is_no_duplicate() -> None:
    answers = [candidate("a", "tested", code="x = 1\n"), candidate("b", "open", code="x = 1\n")]
    assert kept(sort_candidates(answers, PROBLEMS, conversion(type="none"))) == ["a", "b"]


def test_missing_functions_are_one_reason_whatever_they_are_called() -> None:
    answers = [
        candidate("a", code=None, reason="does-not-define-f"),
        candidate("b", code=None, reason="does-not-define-g"),
        candidate("c", code=None, reason="no-code-block"),
    ]
    result = sort_candidates(answers, PROBLEMS, conversion(type="none"))
    assert result.yields.dropped == {"does-not-define": 2, "no-code-block": 1}
    assert [one.detail for one in result.dropped] == ["does-not-define-f", "does-not-define-g", ""]


def test_s15_a_truncated_answer_is_never_kept_even_where_its_code_is_whole() -> None:
    text = "```python\ndef f(x):\n    return 2 * x\n```\nAnd now"
    whole = Completion(text=text, tokens=9, finish_reason="stop")
    cut = Completion(text=text, tokens=9, finish_reason="length")
    assert read_code(PROBLEMS["tested"], whole).code is not None
    extraction = read_code(PROBLEMS["tested"], cut)
    answer = candidate("cut", code=extraction.code, reason=extraction.reason, truncated=True, passed=True)
    assert why(sort_candidates([answer], PROBLEMS, conversion(type="none"))) == {"cut": "truncated"}


@pytest.mark.parametrize(
    "code", ["x = " + " + ".join(["1"] * 900) + "\n", "x = 0x" + "f" * 4000 + "\n"], ids=["deep", "long-number"]
)
def test_code_that_compiles_but_cannot_be_unparsed_does_not_stop_the_others(code: str) -> None:
    compile(code, "answer", "exec")
    answers = [candidate("odd", code=code), candidate("copy", code=code), candidate("plain")]
    result = sort_candidates(answers, PROBLEMS, conversion(type="none"))
    assert sorted([*kept(result), *why(result)]) == ["copy", "odd", "plain"]
    assert list(why(result).values()) == ["duplicate"]
