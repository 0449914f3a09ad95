"""SIGKILL `perseid run` at ten random moments, go on each time, and compare the end with an undisturbed run's.

Passes when every stage was hit, no finished model call was made twice (counted at the engine) and the end state is the
same. The engine is transformers at batch size 1: there an answer depends on its request alone, so that two runs may be
compared byte by byte; a batching engine rounds differently with what else is in the batch.

Takes about a quarter of an hour on 2 cores. `--kills N --seed S` change the moments.
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
from pathlib import Path

from perseid.api.layout import PROGRESS, Layout, read_stage_result
from perseid.api.stages import stages_of

RUN = """\
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
LAYOUT_FILES = {
    "synthesize": ("trees.jsonl", "plans.jsonl", "dropped.jsonl"),
    "convert": ("candidates.jsonl", "samples.jsonl", "dropped.jsonl", "decontamination.json", "yield.json"),
    "finetune": ("model/model.safetensors",),
}
STAGES = stages_of(["sra-mcts"], [])
"""Of that run."""
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 1200


def main() -> int:
    """Run the comparison; the exit code says whether it held."""
    options = _options()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="perseid-crash-") as scratch:
        calm, rough = Path(scratch) / "calm", Path(scratch) / "rough"
        began = time.monotonic()
        _finish(calm)
        seconds = {stage: _seconds(calm, stage) for stage in STAGES}
        print(f"undisturbed: {time.monotonic() - began:.0f} s, by stage {_rounded(seconds)}", flush=True)

        hits: Counter[str] = Counter()
        targets = sorted((STAGES[index % len(STAGES)] for index in range(options.kills)), key=STAGES.index)
        for number, target in enumerate(targets, start=1):
            hit = _kill_in(rough, target, moments.uniform(0.0, 0.8 * seconds[target]))
            hits[hit] += 1
            print(f"kill {number}: in {hit}", flush=True)
        _finish(rough)

        calls = (rough / "calls").read_text().split()
        repeated = len(calls) - len(set(calls))
        different = _differences(calm, rough)
        missed = [stage for stage in STAGES if not hits[stage]]
    print(f"kills by stage: {dict(hits)}; calls: {len(calls)}, of them repeated: {repeated}")
    print(f"files that differ: {different or 'none'}")
    if missed:
        print(f"no kill fell into {missed}: choose another --seed")
    return 1 if repeated or different or missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _start(directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "run.yaml"
    file.write_text(RUN)
    command = [sys.executable, "-m", "perseid.cli", "run", str(file), "--runs-dir", str(directory), "--quiet"]
    environment = {**os.environ, "PERSEID_CALL_LOG": str(directory / "calls")}
    return subprocess.Popen(command, env=environment)


def _finish(directory: Path) -> None:
    code = _start(directory).wait(PATIENCE_SECONDS)
    if code != 0:
        log = _layout(directory).attempt_directory / "log.txt"
        sys.exit(f"perseid run ended with {code}; the end of its log:\n{log.read_text()[-3000:]}")


def _kill_in(directory: Path, target: str, after: float) -> str:
    """Kill a run `after` seconds into a stage; returns the stage that it was in."""
    process = _start(directory)
    layout = _layout(directory)
    already = read_stage_result(layout.stage(target)) is not None
    before = _stamp(layout, target)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not already and _stamp(layout, target) == before and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    end = time.monotonic() + after
    while time.monotonic() < end and process.poll() is None and not already:
        already = read_stage_result(layout.stage(target)) is not None
        time.sleep(POLL_SECONDS)
    hit = next((stage for stage in STAGES if read_stage_result(layout.stage(stage)) is None), "the end")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return hit


def _stamp(layout: Layout, stage: str) -> int:
    try:
        return (layout.stage(stage) / PROGRESS).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _layout(directory: Path) -> Layout:
    return Layout(directory / "crash", generation=0, attempt=0)


def _seconds(directory: Path, stage: str) -> float:
    result = read_stage_result(_layout(directory).stage(stage))
    if result is None:
        sys.exit(f"the undisturbed run has no result of {stage}")
    return result.usage.seconds


def _rounded(seconds: dict[str, float]) -> dict[str, int]:
    return {stage: round(value) for stage, value in seconds.items()}


def _differences(calm: Path, rough: Path) -> list[str]:
    different = [
        f"{stage}/{name}"
        for stage, names in LAYOUT_FILES.items()
        for name in names
        if _digest(_layout(calm).stage(stage) / name) != _digest(_layout(rough).stage(stage) / name)
    ]
    if _worth(calm) != _worth(rough):
        different.append("result.json")
    return different


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _worth(directory: Path) -> dict[str, object]:
    """A generation's result without what belongs to one run: ids, paths and times."""
    result = json.loads(_layout(directory).result.read_text())
    result.pop("runId")
    result["candidate"].pop("uri")
    for usage in result["usage"].values():
        usage.pop("seconds")
    return dict(result)


if __name__ == "__main__":
    sys.exit(main())
