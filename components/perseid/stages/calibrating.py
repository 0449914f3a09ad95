"""The process behind `perseid calibrate`: a search and its conversion, of a sample of problems, and nothing more.

They are the stages that a run has, with their journals: killed at any moment, the same command goes on.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.processes import die_with_starter
from perseid.stages import convert, synthesize
from perseid.stages.runtime import run_stage


def main(submission: Path) -> None:
    """Carry the attempt in the file `submission` through up to its answers' verdicts."""
    die_with_starter()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    attempt = Attempt.model_validate_json(submission.read_bytes())
    run_stage("synthesize", attempt, synthesize.run)
    run_stage("convert", attempt, convert.run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
