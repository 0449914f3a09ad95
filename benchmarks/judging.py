"""Does self-assessment teach the embedded model to judge its own answers?

Carries METEOR's first two stages through once for each seed, with the questions and settings of
examples/meteor-quickstart.yaml. The pack's dev and test questions are held out together: a run of one seed on dev alone
has too few to tell a rise of ten points from chance. The learner's verdicts on its held-out answers are compared with
the checks' by the untrained model, before and after self-assessment, and the seeds are pooled; intervals are bootstraps
over questions, so that a question that several seeds have answered counts as one.

Takes about a quarter of an hour for each seed on 2 cores. `--seeds N` changes their number; `--directory DIR` keeps the
runs there, and goes on with what it finds.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from perseid.api.engine import EngineSpec
from perseid.api.files import VERDICTS_AFTER, VERDICTS_BEFORE
from perseid.api.layout import Layout
from perseid.api.meteor import QuestionSet
from perseid.data.estimates import Estimate
from perseid.data.jsonl import read_jsonl, write_jsonl
from perseid.data.questions import load_questions
from perseid.data.records import Question
from perseid.engines.factory import open_engine
from perseid.engines.models import resolve_model
from perseid.meteor.agreement import Agreement, AgreementChange, agreement_change
from perseid.meteor.critique import self_verdicts
from perseid.meteor.records import JudgeRecord, SelfVerdictRecord

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "meteor-quickstart.yaml"
UNTRAINED = "verdicts-untrained.jsonl"


def main() -> int:
    """Carry the runs through and print what they show; the exit code says whether they ran."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="perseid-judging-") as scratch:
        directory = (options.directory or Path(scratch)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        held_out = _held_out()
        write_jsonl(directory / "held-out.jsonl", held_out)
        stages = [_run(directory, seed) for seed in range(options.seeds)]
        asyncio.run(_ask_untrained(held_out, stages))
        for seed, stage in enumerate(stages):
            _tell(f"seed {seed}", [stage])
        _tell(f"{len(stages)} seeds together", stages)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--directory", type=Path)
    return parser.parse_args()


def _held_out() -> list[Question]:
    splits = [QuestionSet(split="dev"), QuestionSet(split="test")]
    return [question for split in splits for question in load_questions(split, Path())]


def _run(directory: Path, seed: int) -> Path:
    """Carry one run through, or on; returns the directory of its self-assessment."""
    run = yaml.safe_load(EXAMPLE.read_text())
    run["metadata"]["name"] = name = f"judging-{seed}"
    run["spec"]["seed"] = seed
    meteor = run["spec"]["meteor"]
    meteor["stages"] = ["mentor-supervised", "self-assessment"]
    meteor["questions"]["dev"] = {"source": "jsonl", "path": str(directory / "held-out.jsonl")}
    meteor["questions"]["test"] = []
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(run))
    command = [sys.executable, "-m", "perseid.cli", "run", str(file), "--runs-dir", str(directory), "--quiet"]
    if (code := subprocess.run(command, check=False).returncode) != 0:
        sys.exit(f"perseid run ended with {code} for seed {seed}")
    return Layout(directory / name, generation=0, attempt=0).stage("self-assessment")


async def _ask_untrained(held_out: Sequence[Question], stages: Sequence[Path]) -> None:
    """Have the model that nobody trained judge the same answers."""
    unasked = [stage for stage in stages if not (stage / UNTRAINED).exists()]
    if not unasked:
        return
    model = resolve_model("embedded:smollm2-135m-instruct")
    engine = await open_engine(model.path, model.model_id, EngineSpec.model_validate({"type": "transformers"}))
    try:
        for stage in unasked:
            judged = [_judged(one) for one in read_jsonl(stage / VERDICTS_BEFORE, SelfVerdictRecord)]
            write_jsonl(stage / UNTRAINED, await self_verdicts(engine, held_out, judged))
    finally:
        await engine.close()


def _judged(one: SelfVerdictRecord) -> JudgeRecord:
    return JudgeRecord(
        id=one.id,
        question_id=one.question_id,
        answer=one.answer,
        right=one.judged_right,
        advice="",
        source="evaluation",
    )


def _tell(title: str, stages: Sequence[Path]) -> None:
    untrained, before, after = (list(_pooled(stages, name)) for name in (UNTRAINED, VERDICTS_BEFORE, VERDICTS_AFTER))
    by_stage, altogether = _change(before, after), _change(untrained, after)
    print(f"\n{title}: {by_stage.answers} answers to {len({one.question_id for one in before})} held-out questions")
    for name, measured in (
        ("untrained", altogether.before),
        ("before self-assessment", by_stage.before),
        ("after it", by_stage.after),
    ):
        print(f"  {name + ':':24}{_figures(measured)}; {measured.called_right} called right, {measured.right} are")
    print(f"  {'self-assessment:':24}{_figures(by_stage)}")
    print(f"  {'all training:':24}{_figures(altogether)}")


def _pooled(stages: Sequence[Path], name: str) -> Iterable[SelfVerdictRecord]:
    for number, stage in enumerate(stages):
        for one in read_jsonl(stage / name, SelfVerdictRecord):
            yield one.model_copy(update={"id": f"{number}/{one.id}"})


def _change(before: Sequence[SelfVerdictRecord], after: Sequence[SelfVerdictRecord]) -> AgreementChange:
    return agreement_change(before, after, resamples=10_000, confidence=0.95, seed=0)


def _figures(of: Agreement | AgreementChange) -> str:
    figures = (("AUC", of.auc), ("agreement", of.accuracy), ("kappa", of.kappa))
    return ", ".join(f"{name} {_estimate(estimate)}" for name, estimate in figures)


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
