"""Checkpoints that a kill at any moment cannot spoil: each is one file, complete from the instant it has its name."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perseid.training.errors import TrainingError

_NAME = re.compile(r"step-(\d{8})\.pt")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that the next step depends on. Data order, learning rate and randomness are functions of the step."""

    step: int
    """Optimizer steps that are done."""
    weights: dict[str, torch.Tensor]
    """The trained parameters by name: adapters only, with LoRA."""
    optimizer: dict[str, Any]
    losses: list[float]
    """Loss of every step so far."""
    tokens: int
    """Tokens seen so far, without padding."""
    seconds: float
    """Time in steps so far."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then delete the older ones. The old one stays until the new one is safely on disk."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{checkpoint.step:08d}.pt"
    unfinished = path.with_suffix(".tmp")
    content = {field: getattr(checkpoint, field) for field in Checkpoint.__slots__}
    with unfinished.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(directory)
    for other in _checkpoints(directory):
        if other != path:
            other.unlink()
    return path


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest complete checkpoint, tensors on the CPU; None where there is none yet."""
    newest = max(_checkpoints(directory), default=None)
    if newest is None:
        return None
    try:
        return Checkpoint(**torch.load(newest, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"the checkpoint {newest} cannot be read ({error}). Delete it to start the fine-tuning anew"
        ) from error


def discard_checkpoints(directory: Path) -> None:
    """Delete the run's directory, with its checkpoints and what it kept beside them: the model is finished."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def sync_directory(directory: Path) -> None:
    """Make the directory's names as durable as its files' contents."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checkpoints(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))
