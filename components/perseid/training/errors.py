"""What can go wrong in training, as one type that says what to do."""

from __future__ import annotations


class TrainingError(Exception):
    """Training cannot go on. The message names the place, the reason and the remedy."""
