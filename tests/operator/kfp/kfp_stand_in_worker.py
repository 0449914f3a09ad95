"""Stands in for `perseid.runner.worker`: writes what stages write, as the file `script` in the storage says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, RESULT, Layout, part_names
from perseid.processes import die_with_starter


def main(submission: Path) -> None:
    die_with_starter()
    attempt = Attempt.model_validate_json(submission.read_bytes())
    layout = Layout.of(attempt)
    with (Path(attempt.storage) / "starts").open("a") as file:
        file.write(f"{attempt.run_id} {os.getpid()}\n")
    match (Path(attempt.storage) / "script").read_text():
        case "succeed":
            spec = attempt.run.spec
            for name in [part for stage in spec.stages for part in part_names(stage, spec.pipeline.shards)]:
                progress(layout.stage(name), name)
                result(layout.stage(name), {"stage": name, "state": "done"})
        case "fail in convert":
            result(layout.stage("synthesize"), {"stage": "synthesize", "state": "done"})
            result(layout.stage("convert"), {"stage": "convert", "state": "failed", "error": "no disk"})
            raise SystemExit(1)
        case "fail in self-assessment":
            result(layout.stage("mentor-supervised"), {"stage": "mentor-supervised", "state": "done"})
            failed = {"state": "failed", "error": "no judge is paid for", "spentBudget": {"mentorTokens": 7}}
            result(layout.stage("self-assessment"), {"stage": "self-assessment", **failed})
            raise SystemExit(1)
        case "hang":
            # With a child of its own, which must go too.
            child = "from perseid.processes import die_with_starter as f; f(); import signal; signal.pause()"
            subprocess.Popen([sys.executable, "-c", child])
            progress(layout.stage("synthesize"), "synthesize")
            signal.pause()


def progress(directory: Path, name: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    told = {"stage": name, "task": "search", "done": 1, "total": 2, "unit": "trees", "started_at": time.time()}
    (directory / "scratch").write_text(json.dumps(told))
    (directory / "scratch").rename(directory / PROGRESS)


def result(directory: Path, told: dict[str, object]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "scratch").write_text(json.dumps(told))
    (directory / "scratch").rename(directory / RESULT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
