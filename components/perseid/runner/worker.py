"""The process that executes one attempt's pipeline with kfp.local, one process per stage."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from kfp import local

from perseid.api.attempt import Attempt
from perseid.pipelines.generation import build_pipeline
from perseid.processes import DIE_WITH, die_with_starter


def main(submission: Path) -> None:
    """Execute the attempt in the file `submission`; a stage that fails ends the process with an error."""
    die_with_starter()
    attempt = Attempt.model_validate_json(submission.read_bytes())
    # kfp.local starts `python3` from PATH; the stages need this interpreter's packages.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ[DIE_WITH] = str(os.getpid())
    logging.getLogger().setLevel(logging.INFO)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(submission.parent / "kfp"),
        raise_on_error=True,
    )
    # One shard after the other: they would share this machine's memory, and take it from each other.
    build_pipeline(attempt.run, shards_at_once=1)(**attempt.arguments())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
