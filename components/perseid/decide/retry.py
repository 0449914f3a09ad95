"""When a failed attempt is tried again.

A failure of the run's own is tried again at once, up to `spec.generations.maxAttempts` tries. A fault of the
infrastructure uses up none of them, but is waited out, longer after each in a row.
"""

from __future__ import annotations

from datetime import datetime

from perseid.api.lifecycle import GenerationsSpec
from perseid.api.status import GenerationStatus

FIRST_WAIT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 300.0


def is_exhausted(generation: GenerationStatus, limits: GenerationsSpec) -> bool:
    """Whether no further attempt is allowed."""
    return generation.charged_attempts >= limits.max_attempts


def pause_seconds(faults: int) -> float:
    """Pause after that many infrastructure faults in a row: 10 s, doubled each time, 5 minutes at most."""
    if faults <= 0:
        return 0.0
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(faults - 1, 10))


def seconds_to_wait(generation: GenerationStatus, now: datetime) -> float:
    """What is left of the pause before the next attempt."""
    finished = generation.attempts[-1].finished_at if generation.attempts else None
    if finished is None:
        return 0.0
    elapsed = (now - finished).total_seconds()
    if elapsed < 0:  # the clock was set back: waiting for it to catch up could take for ever
        return 0.0
    return max(0.0, pause_seconds(generation.infrastructure_faults) - elapsed)
