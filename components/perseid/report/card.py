"""A model's card: what it was made of, what it is worth, and under which terms, as the hub's README.md wants it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from perseid import __version__
from perseid.api.layout import Layout
from perseid.api.result import GenerationResult
from perseid.report.files import read_document
from perseid.report.models import ChosenModel
from perseid.report.stages import shown_attempt
from perseid.report.summary import scored_titles
from perseid.report.versus import NothingSharedError, RunFiles, SetVersus, compare_models
from perseid.training.manifest import MANIFEST_NAME, ModelManifest

TEMPLATES = Path(__file__).with_name("templates")
EMBEDDED = {"embedded:smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""Hub id and licence of models that come with packages."""


SEARCHES = {
    "mcts": "SRA-MCTS (arXiv 2411.11053): the model searched for plans by Monte Carlo tree search, wrote code by them,",
    "tot": "As SRA-MCTS (arXiv 2411.11053), with Tree of Thoughts in place of its search: the model searched for plans"
    " breadth first, wrote code by them,",
    "cot": "As SRA-MCTS (arXiv 2411.11053), without its search: the model wrote each plan as one chain of thought, and"
    " code by it,",
    "direct": "Rejection sampling: the model wrote code for each problem alone, without a plan,",
}
"""What a search's algorithm was, up to what was learned from it."""
TAGS = {"mcts": "sra-mcts", "tot": "tree-of-thoughts", "cot": "chain-of-thought", "direct": "rejection-sampling"}
"""What the hub's readers look for."""
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Taught:
    """One generation's part in the model."""

    generation: int
    kept: int
    """Answers that became training data."""
    total: int


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says."""

    name: str
    run: RunFiles
    model: ChosenModel
    base: str
    """Hub id of the base, or what the run calls it."""
    licence: str | None
    """SPDX-like identifier as the hub spells it; None where nobody has said it."""
    confidence: float
    sets: list[SetVersus]
    """The base (first) against this model (second)."""
    deciding: frozenset[str]
    """The set that decided its promotion, or those that did together."""
    taught: list[Taught]
    """Generations between the base and this model, the first one first."""
    manifest: ModelManifest | None


def card_facts(run: RunFiles, model: ChosenModel, directory: Path, name: str, licence: str | None) -> CardFacts:
    """The facts of the model of a generation, whose files lie in `directory`. Raises DataError."""
    assert model.generation is not None  # the base has a card of its own
    try:
        sets = compare_models(run, run, "base", model.generation).sets
    except NothingSharedError:
        sets = []  # it was scored on nothing that is still there, and the card says so
    chain = list(_chain(run, model.generation))
    results = [result for result in chain if result is not None]
    ref = run.run.spec.model.ref
    base, known = EMBEDDED.get(ref, (ref, None))
    newest = results[-1] if results else None
    return CardFacts(
        name=name,
        run=run,
        model=model,
        base=base,
        licence=licence or known,
        confidence=run.run.spec.evaluation.confidence,
        sets=sets,
        deciding=frozenset() if newest is None or newest.dev is None else _deciding(run, newest.dev.name),
        taught=[Taught(one.generation, one.yields.kept, one.yields.total) for one in results],
        manifest=read_document(directory / MANIFEST_NAME, ModelManifest),
    )


def render_card(facts: CardFacts) -> str:
    """The README.md, with its front matter."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # Markdown; what a model has written is not in it
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = lambda value: "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * one for one in value))
    environment.filters["points"] = lambda value: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * one for one in value))
    spec = facts.run.run.spec
    text = environment.get_template("card.md").render(
        facts=facts,
        spec=spec,
        version=__version__,
        front=_front(facts),
        search=SEARCHES[spec.synthesis.search.algorithm],
    )
    return _BLANK_LINES.sub("\n\n", text).rstrip() + "\n"


def _deciding(run: RunFiles, name: str) -> frozenset[str]:
    """With both methods their dev sets decide together, under a name that no set has."""
    dev = frozenset(title for title, decides in scored_titles(run.run.spec) if decides)
    return frozenset({name}) if name in dev else dev


def _front(facts: CardFacts) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    spec = facts.run.run.spec
    data = ModelCardData(
        license=facts.licence,
        base_model=facts.base if "/" in facts.base and not facts.base.startswith((".", "/", "~", "s3:")) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[
            "perseid",
            *(TAGS[spec.synthesis.search.algorithm] if one == "sra-mcts" else one for one in spec.methods),
        ],
        model_name=facts.name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_name=one.second_name,
                dataset_type=one.second_name,
                metric_type="pass@1",
                metric_value=round(one.second[0], 4),
            )
            for one in facts.sets
        ],
    )
    return str(data.to_yaml()).strip()


def _chain(run: RunFiles, generation: int) -> Iterator[GenerationResult | None]:
    """Results of the generations that lead from the base to this one's model, the first one first."""
    known = {one.index: one for one in run.status.generations}
    line = []
    index = generation
    while index in known:
        line.append(known[index])
        index = known[index].start_model.generation
    for one in reversed(line):
        yield read_document(Layout(run.root, one.index, shown_attempt(run.status, one)).result, GenerationResult)
