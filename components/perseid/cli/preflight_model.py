"""Models that a run names: what of them can be seen without loading or downloading one."""

from __future__ import annotations

from pathlib import Path

from perseid.runner.errors import RunnerError


def check_model(field: str, ref: str) -> None:
    """Raise RunnerError for a directory without a model in it. `field` is where the spec names it; paths are absolute.

    Models of the hub and in object storage are left to the stages: looking at them would need the network.
    """
    if ref.startswith("/") and not (Path(ref) / "config.json").is_file():
        raise RunnerError(
            f"{field} is {ref}, but there is no {Path(ref) / 'config.json'}; give a directory with a model in"
            " transformers' format, a hub id such as org/name, or embedded:smollm2-135m-instruct"
        )
