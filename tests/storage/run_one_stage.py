"""A pod of a stage: python run_one_stage.py STAGE ATTEMPT.json, with the stage's own code."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.stages.runtime import run_stage

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    name = sys.argv[1]
    told = Attempt.model_validate_json(Path(sys.argv[2]).read_bytes())
    run_stage(name, told, importlib.import_module(f"perseid.stages.{name}").run)
