"""What becomes training data: every answer is kept or dropped with one reason, so that the numbers add up (S14-S18)."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from perseid.api.result import YieldCounts
from perseid.api.synthesis import ConversionSpec, GateSpec
from perseid.data.records import Candidate, Dropped, Problem
from perseid.stages.errors import StageError
from perseid.stages.yields import count_yield


@dataclass(slots=True)
class Sorted:
    """Answers, sorted into kept and dropped."""

    kept: list[Candidate] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def drop(self, candidate: Candidate, reason: str, detail: str = "") -> None:
        """Leave one out."""
        self.dropped.append(Dropped(id=candidate.id, problem_id=candidate.problem_id, reason=reason, detail=detail))

    @property
    def yields(self) -> YieldCounts:
        """kept + dropped by reason = total."""
        return count_yield(len(self.kept), self.dropped)


def sort_candidates(candidates: Sequence[Candidate], problems: Mapping[str, Problem], spec: ConversionSpec) -> Sorted:
    """Apply the gate, then keep each problem's distinct answers, the likeliest first, up to `max_per_problem`."""
    result = Sorted()
    passed = _through_gate(candidates, problems, spec.gate, result)
    by_problem: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in passed:
        by_problem[candidate.problem_id].append(candidate)
    for answers in by_problem.values():
        _keep_distinct(answers, spec.max_per_problem, result)
    order = {candidate.id: place for place, candidate in enumerate(candidates)}
    result.kept.sort(key=lambda one: order[one.id])
    result.dropped.sort(key=lambda one: order[one.id])
    return result


def _through_gate(
    candidates: Iterable[Candidate], problems: Mapping[str, Problem], gate: GateSpec, result: Sorted
) -> list[Candidate]:
    passed: list[Candidate] = []
    by_likelihood: list[Candidate] = []
    for candidate in candidates:
        if candidate.code is None:
            result.drop(candidate, *_why_no_code(candidate.reason))
            continue
        test = gate_of(problems[candidate.problem_id], gate)
        if test == "keep" or (test == "tests" and candidate.passed):
            passed.append(candidate)
        elif test == "tests":
            result.drop(candidate, "tests-failed", candidate.reason)
        elif test == "likelihood":
            by_likelihood.append(candidate)
        elif test == "drop":
            result.drop(candidate, "no-tests")
        elif candidate.score is None:
            result.drop(candidate, "no-score", "the evaluator gave no score")
        elif candidate.score < gate.min_score:
            result.drop(candidate, "low-score", f"{candidate.score:.1f} is below {gate.min_score:g}")
        else:
            passed.append(candidate)
    return passed + _likeliest(by_likelihood, gate.keep_fraction, result)


def gate_of(problem: Problem, gate: GateSpec) -> Literal["tests", "likelihood", "ladder", "keep", "drop"]:
    """What decides about the answers to a problem."""
    if gate.type == "tests":
        return "tests" if problem.tests else gate.without_tests
    return "keep" if gate.type == "none" else gate.type


def _likeliest(candidates: list[Candidate], fraction: float, result: Sorted) -> list[Candidate]:
    if not candidates:
        return []
    if any(candidate.mean_logprob is None for candidate in candidates):
        raise StageError(
            "the gate goes by likelihood, but the endpoint of synthesis.policyEndpoint gives no log-probabilities; set"
            " conversion.gate.type to tests or none, or use an endpoint with logprobs"
        )
    ranked = sorted(candidates, key=_by_likelihood)
    kept = max(1, round(fraction * len(ranked)))
    for candidate in ranked[kept:]:
        result.drop(candidate, "less-likely", f"not among the likeliest {fraction:.0%}")
    return ranked[:kept]


def _keep_distinct(answers: list[Candidate], limit: int, result: Sorted) -> None:
    seen: set[str] = set()
    kept = 0
    for candidate in sorted(answers, key=_by_likelihood):
        form = normal_code(candidate.code or "")
        if form in seen:
            result.drop(candidate, "duplicate")
        elif kept == limit:
            result.drop(candidate, "enough-of-this-problem")
        else:
            seen.add(form)
            kept += 1
            result.kept.append(candidate)


def _why_no_code(reason: str) -> tuple[str, str]:
    """Reason and detail. A missing function is one reason, whatever it is called: reports count by reason."""
    missing = "does-not-define"
    return (missing, reason) if reason.startswith(missing) else (reason, "")


def normal_code(code: str) -> str:
    """Code without layout and comments: two answers that differ only in these are one."""
    try:
        return ast.unparse(ast.parse(code))
    except (RecursionError, ValueError):  # a sum of hundreds of terms, an endless number: it compiles, but is not shown
        return code.strip()


def _by_likelihood(candidate: Candidate) -> tuple[float, str]:
    """The likeliest first; by id where nothing is known or two are equal."""
    known = candidate.mean_logprob
    return (float("inf") if known is None else -known, candidate.id)
