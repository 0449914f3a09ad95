"""Stands in for `perseid.runner.worker`: does what the file `script` beside the submission says, without a pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from run_fakes import result_of

from perseid.api.attempt import Attempt
from perseid.processes import DIE_WITH, die_with_starter


def main(submission: Path) -> None:
    die_with_starter()
    attempt = Attempt.model_validate_json(submission.read_bytes())
    directory = submission.parent
    with (directory / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    match (Path(attempt.storage) / "script").read_text():
        case "succeed":
            made = result_of(attempt.run_id, attempt.generation, attempt.number, 0.2)
            (directory / "result.json").write_text(made.model_dump_json(by_alias=True))
        case "write nonsense":
            (directory / "result.json").write_text('{"generation": -1}')
        case "fail in convert":
            fail(directory, "synthesize", "convert", "no disk")
        case "fail in self-assessment":
            fail(directory, "mentor-supervised", "self-assessment", "no judge", usage={"cost": 2.0, "paidTokens": 20})
        case "fail for lack of budget":
            spent = {"mentorCost": 5.0}
            fail(directory, "mentor-supervised", "self-assessment", "no question is paid for", spentBudget=spent)
        case "be killed in synthesize":
            (directory / "synthesize").mkdir()
            os.kill(os.getpid(), 9)
        case "break":
            raise SystemExit(3)
        case "hang":
            time.sleep(600)
        case "hang behind a shell":
            # As kfp.local starts a stage: by a shell that does not pass a kill on.
            stage = "from perseid.processes import die_with_starter as f; f(); import time; print(1, flush=True)"
            environment = {**os.environ, DIE_WITH: str(os.getpid())}
            script = f"'{sys.executable}' -c '{stage}; time.sleep(600)' > '{directory / 'ready'}'\n:\n"
            subprocess.run(["sh", "-ec", script], check=False, env=environment)


def fail(directory: Path, done: str, failed: str, error: str, **more: object) -> None:
    for stage, told in (
        (done, {"state": "done", "usage": {"cost": 0.5, "paidTokens": 7}}),
        (failed, {"state": "failed", "error": error, **more}),
    ):
        (directory / stage).mkdir()
        (directory / stage / "result.json").write_text(json.dumps({"stage": stage, **told}))
    raise SystemExit(1)


main(Path(sys.argv[1]))
