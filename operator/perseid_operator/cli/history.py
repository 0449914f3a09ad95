"""Generations that the status has no more room for, from the ConfigMaps in which the operator keeps them."""

from __future__ import annotations

from pydantic import ValidationError

from perseid.api.names import HISTORY_SIZE, history_config_map
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid_operator.cli.access import Access
from perseid_operator.cli.errors import ClusterError
from perseid_operator.cli.runs import SeenRun


async def whole_status(access: Access, seen: SeenRun) -> tuple[EvolutionRunStatus, str]:
    """The status with every generation that can be had, and what is to be said about those that cannot."""
    status = seen.known_status()
    first = status.generations[0].index if status.generations else 0
    earlier: dict[int, GenerationStatus] = {}
    why = ""
    for start in range(0, first, HISTORY_SIZE):
        name = history_config_map(seen.name, seen.uid, start)
        try:
            data = await access.config_map(seen.namespace, name)
            kept = [GenerationStatus.model_validate_json(text) for text in data.values()]
        except (ClusterError, ValidationError) as error:
            why = f" (ConfigMap {name}: {error})"
            continue
        earlier |= {one.index: one for one in kept if one.index < first}
    missing = first - len(earlier)
    note = (
        f"{missing} earlier generations are not in it: they are kept nowhere that can be read{why}." if missing else ""
    )
    # A copy that is not validated: the bound on the status is not one on what is shown.
    generations = [*(earlier[index] for index in sorted(earlier)), *status.generations]
    return status.model_copy(update={"generations": generations}), note
