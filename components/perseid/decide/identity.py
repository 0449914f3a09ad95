"""The name of an attempt's run: the same whoever computes it, whenever."""

from __future__ import annotations

from uuid import UUID, uuid5


def run_id_of(uid: str, generation: int, attempt: int) -> str:
    """uuid5 of the lineage and the attempt; nothing that can change goes in. ValueError where uid is no UUID."""
    return str(uuid5(UUID(uid), f"{generation}/{attempt}"))
