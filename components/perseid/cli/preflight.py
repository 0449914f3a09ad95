"""Mistakes that can be found before anything starts: data that does not load, absent packages and models."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable

from perseid.api.spec import DefinitionSpec, EvolutionRun
from perseid.cli.preflight_endpoints import check_keys
from perseid.cli.preflight_meteor import QUESTIONS, check_meteor
from perseid.cli.preflight_model import check_model
from perseid.cli.preflight_problems import check_problems
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
    if spec.model.evolution_run is None:
        check_model("spec.model.ref", spec.model.ref, trust_remote_code=spec.model.trust_remote_code)
    _check_names(_evaluation_sets(spec))
    if "sra-mcts" in spec.methods:
        check_problems(spec)
        check_keys(spec, keys=keys)
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
