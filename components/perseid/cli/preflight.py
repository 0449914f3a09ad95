"""Mistakes that can be found before anything starts: data that does not load, absent packages and models."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from perseid.api.problems import ProblemSet
from perseid.api.spec import DefinitionSpec, EvolutionRun
from perseid.cli.preflight_meteor import QUESTIONS, check_meteor
from perseid.cli.preflight_model import check_model
from perseid.data.problems import load_problems
from perseid.runner.errors import RunnerError

ENGINE_PACKAGES = {"vllm": "vllm", "transformers": "transformers"}


def check(run: EvolutionRun, *, keys: bool) -> None:
    """Raise RunnerError or DataError for what would stop the run. The run's paths must be absolute.

    `keys`: whether the API keys of endpoints must be set here; where a file is only checked, it may be for a cluster.

    Datasets of the hub are left to the stages: checking them would download them. What a method needs is looked at
    where the run uses that method.
    """
    spec = run.spec
    package = ENGINE_PACKAGES[spec.engine.type]
    if importlib.util.find_spec(package) is None:
        extra = "cpu (or vllm on a machine with a GPU)" if package == "vllm" else "models"
        raise RunnerError(
            f"spec.engine.type is {spec.engine.type}, but the package {package} is not installed in"
            f" {sys.prefix}; install Perseid with the extra {extra}"
        )
    check_model("spec.model.ref", spec.model.ref)
    _check_names(_evaluation_sets(spec))
    if "sra-mcts" in spec.methods:
        _check_problems(spec)
    if "meteor" in spec.methods:
        check_meteor(spec, keys=keys)


def _evaluation_sets(spec: DefinitionSpec) -> list[tuple[str, str]]:
    """Field and title of every set that models are scored on."""
    sets: list[tuple[str, str]] = []
    if "sra-mcts" in spec.methods:
        sets += _named("spec.problems", spec.problems.dev.title, [one.title for one in spec.problems.test])
    if "meteor" in spec.methods:
        questions = spec.meteor.questions
        sets += _named(QUESTIONS, questions.dev.title, [one.title for one in questions.test])
    return sets


def _named(field: str, dev: str, tests: Iterable[str]) -> list[tuple[str, str]]:
    return [(f"{field}.dev", dev), *((f"{field}.test[{index}]", title) for index, title in enumerate(tests))]


def _check_names(sets: list[tuple[str, str]]) -> None:
    fields: dict[str, str] = {}
    for field, title in sets:
        first = fields.setdefault(title, field)
        if first != field:
            raise RunnerError(
                f"two evaluation sets are called {title}; give one of them another name ({first}.name or {field}.name)"
            )


def _check_problems(spec: DefinitionSpec) -> None:
    train = _ids(spec.problems.train)
    for problems in (spec.problems.dev, *spec.problems.test):
        shared = sorted(_ids(problems) & train)
        if shared:
            raise RunnerError(
                f"{len(shared)} problem(s) are in spec.problems.train and in the evaluation set {problems.title}, for"
                f" example {shared[0]}; a score on problems that were trained on says nothing: take them out of one"
            )


def _ids(problems: ProblemSet) -> frozenset[str]:
    if problems.source == "hub":
        return frozenset()
    return frozenset(problem.id for problem in load_problems(problems, Path("/")))
