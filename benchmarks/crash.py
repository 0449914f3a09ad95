"""SIGKILL `perseid run` at ten random moments, go on each time, and compare the end with an undisturbed run's.

Passes when every stage was hit, no finished model call was made twice (counted at the engine) and the end state is the
same. The engine is transformers at batch size 1: there an answer depends on its request alone, so that two runs may be
compared byte by byte; a batching engine rounds differently with what else is in the batch.

`--method meteor` runs METEOR's stages, with a mentor behind an endpoint that this program serves. A method takes about
a quarter of an hour on 2 cores. `--kills N --seed S` change the moments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from perseid.api.layout import PROGRESS, Layout, read_stage_result
from perseid.api.meteor import QuestionSet
from perseid.api.stages import METEOR_STAGES, stages_of
from perseid.data.questions import load_questions, pack_answers_path
from perseid.engines.protocol import Message, Request, Sampling
from perseid.engines.recorded import RecordedEngine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from chat_endpoint import ChatEndpoint, completion

SRA_MCTS_RUN = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata: {name: crash}
spec:
  seed: 7
  engine: {type: transformers, transformers: {batchSize: 1}}
  problems:
    train: {source: pack, split: train, levels: [one-line], limit: 3}
    dev: {source: pack, split: dev, levels: [one-line], limit: 2}
    test: [{source: pack, split: test, levels: [one-line], limit: 2}]
  synthesis: {search: {rounds: 2, branch: 2, maxStepTokens: 32}}
  conversion: {samplesPerPlan: 2, sampling: {maxTokens: 48}}
  finetune: {epochs: 4, batchSize: 1, checkpointSteps: 1, minSamples: 1}
  evaluation: {samples: 2, sampling: {temperature: 0.6, maxTokens: 48}, bootstrap: 1000}
  generations: {promotion: {rule: improvement, minImprovement: -1.0}}
"""
METEOR_RUN = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata: {name: crash}
spec:
  seed: 7
  methods: [meteor]
  engine: {type: transformers, transformers: {batchSize: 1}}
  meteor:
    questions:
      train: {source: pack, split: train, limit: 6}
      dev: {source: pack, split: dev, limit: 3}
      test: [{source: pack, split: test, limit: 2}]
    mentor:
      type: openai
      openai: {baseUrl: "MENTOR", model: mentor, maxRequestsInFlight: 1}
      price: {prompt: 1.0, completion: 1.0}
      sampling: {maxTokens: 96}
    mentorSupervised: {sampling: {maxTokens: 48}}
    # Whatever a training costs on so few questions, it stays: otherwise there would be no model to compare.
    selfAssessment: {interval: 2, maxTries: 2, tolerance: 1.0, sampling: {maxTokens: 64}}
    selfEvolution: {critique: self-verdict, samples: 2, maxTurns: 1, sampling: {maxTokens: 64}}
  finetune: {epochs: 3, batchSize: 2, checkpointSteps: 1, minSamples: 1, learningRate: 0.0003}
  evaluation: {samples: 2, sampling: {temperature: 0.6, maxTokens: 64}, bootstrap: 1000}
  generations: {promotion: {rule: improvement, minImprovement: -1.0}}
"""


@dataclass(frozen=True)
class Case:
    """A run to be killed."""

    run: str
    stages: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    """What must be equal in the end, by stage; a glob each."""


CASES = {
    "sra-mcts": Case(
        SRA_MCTS_RUN,
        stages_of(["sra-mcts"], []),
        {
            "synthesize": ("trees.jsonl", "plans.jsonl", "dropped.jsonl"),
            "convert": ("candidates.jsonl", "samples.jsonl", "dropped.jsonl", "decontamination.json", "yield.json"),
            "finetune": ("model/model.safetensors",),
        },
    ),
    "meteor": Case(
        METEOR_RUN,
        stages_of(["meteor"], METEOR_STAGES),
        {
            "mentor-supervised": ("guidelines.jsonl", "samples.jsonl", "yield.json", "model/model.safetensors"),
            "self-assessment": (
                "assessments.jsonl",
                "samples.jsonl",
                "dropped.jsonl",
                "agreement.json",
                "rounds/*/trial.json",
                "model/model.safetensors",
            ),
            "self-evolution": ("turns/*/*.jsonl", "dropped.jsonl", "rounds/*/trial.json"),
        },
    ),
}
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 1200


def main() -> int:
    """Run the comparison; the exit code says whether it held."""
    options = _options()
    case = CASES[options.method]
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="perseid-crash-") as scratch, Mentor() as mentor:
        calm, rough = (Side(case, Path(scratch) / name, mentor.base_url) for name in ("calm", "rough"))
        began = time.monotonic()
        calm.finish()
        seconds = {stage: calm.seconds(stage) for stage in case.stages}
        print(f"undisturbed: {time.monotonic() - began:.0f} s, by stage {_rounded(seconds)}", flush=True)

        hits: Counter[str] = Counter()
        targets = sorted(
            (case.stages[index % len(case.stages)] for index in range(options.kills)), key=case.stages.index
        )
        for number, target in enumerate(targets, start=1):
            hit = rough.kill_in(target, moments.uniform(0.0, 0.8 * seconds[target]))
            hits[hit] += 1
            print(f"kill {number}: in {hit}", flush=True)
        rough.finish()

        calls = (rough.directory / "calls").read_text().split()
        repeated = len(calls) - len(set(calls))
        files, different = len(calm.digests()), _differences(calm, rough)
        missed = [stage for stage in case.stages if not hits[stage]]
    print(f"kills by stage: {dict(hits)}; calls: {len(calls)}, of them repeated: {repeated}")
    print(f"files that differ, of {files}: {different or 'none'}")
    if missed:
        print(f"no kill fell into {missed}: choose another --seed")
    return 1 if repeated or different or missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=sorted(CASES), default="sra-mcts")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Mentor(ChatEndpoint):
    """Answers with the pack's recorded answers."""

    def __init__(self) -> None:
        super().__init__()
        self._questions = load_questions(QuestionSet(split="train"), Path(), "units of measurement")
        self._recorded = RecordedEngine(Path(pack_answers_path()))

    async def answer(self, body: dict[str, Any]) -> web.StreamResponse:
        """The answer to the question that stands in the request."""
        asked = body["messages"][-1]["content"]
        subject = next(one.id for one in self._questions if one.title in asked)
        request = Request((Message("user", asked),), Sampling(1), "mentor-answer", subject)
        generation = await self._recorded.generate(request)
        return completion([one.text for one in generation.completions])


@dataclass(frozen=True)
class Side:
    """One of the two runs that are compared."""

    case: Case
    directory: Path
    mentor: str
    """The mentor's address."""

    @property
    def layout(self) -> Layout:
        """Of the run's only attempt."""
        return Layout(self.directory / "crash", generation=0, attempt=0)

    def start(self) -> subprocess.Popen[bytes]:
        """Begin the run, or go on with it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "run.yaml"
        file.write_text(self.case.run.replace("MENTOR", self.mentor))
        command = [sys.executable, "-m", "perseid.cli", "run", str(file), "--runs-dir", str(self.directory), "--quiet"]
        environment = {**os.environ, "PERSEID_CALL_LOG": str(self.directory / "calls"), "OPENAI_API_KEY": "none"}
        return subprocess.Popen(command, env=environment)

    def finish(self) -> None:
        """Have it go on to its end."""
        code = self.start().wait(PATIENCE_SECONDS)
        if code != 0:
            log = self.layout.attempt_directory / "log.txt"
            sys.exit(f"perseid run ended with {code}; the end of its log:\n{log.read_text()[-3000:]}")

    def kill_in(self, target: str, after: float) -> str:
        """Kill the run `after` seconds into a stage; returns the stage that it was in."""
        process = self.start()
        stages, layout = self.case.stages, self.layout
        already = read_stage_result(layout.stage(target)) is not None
        before = self._stamp(target)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not already and self._stamp(target) == before and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        end = time.monotonic() + after
        while time.monotonic() < end and process.poll() is None and not already:
            already = read_stage_result(layout.stage(target)) is not None
            time.sleep(POLL_SECONDS)
        hit = next((stage for stage in stages if read_stage_result(layout.stage(stage)) is None), "the end")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return hit

    def _stamp(self, stage: str) -> int:
        try:
            return (self.layout.stage(stage) / PROGRESS).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def seconds(self, stage: str) -> float:
        """How long a stage took."""
        result = read_stage_result(self.layout.stage(stage))
        if result is None:
            sys.exit(f"the undisturbed run has no result of {stage}")
        return result.usage.seconds

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file that must be equal, by stage and name."""
        return {
            f"{stage}/{path.relative_to(self.layout.stage(stage))}": hashlib.sha256(path.read_bytes()).hexdigest()
            for stage, patterns in self.case.files.items()
            for pattern in patterns
            for path in self.layout.stage(stage).glob(pattern)
        }

    def worth(self) -> dict[str, object]:
        """The generation's result without what belongs to one run: ids, paths and times."""
        result = json.loads(self.layout.result.read_text())
        result.pop("runId")
        result["candidate"].pop("uri")
        for usage in result["usage"].values():
            usage.pop("seconds")
        return dict(result)


def _rounded(seconds: dict[str, float]) -> dict[str, int]:
    return {stage: round(value) for stage, value in seconds.items()}


def _differences(calm: Side, rough: Side) -> list[str]:
    first, second = calm.digests(), rough.digests()
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return different if calm.worth() == rough.worth() else [*different, "result.json"]


if __name__ == "__main__":
    sys.exit(main())
