"""`perseid logs`: what the stages of an attempt have written, or what is known of it where their pods are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from perseid.api.layout import part_names
from perseid.api.pipeline import RUN_ID_LABEL
from perseid.api.reasons import StageState
from perseid.api.stages import StageName
from perseid.api.status import AttemptStatus, EvolutionRunStatus, GenerationStatus
from perseid.decide import run_id_of
from perseid_operator.cli.access import Access, ForbiddenError, RefusedError
from perseid_operator.cli.errors import ClusterError
from perseid_operator.cli.pods import StagePod, stage_pods
from perseid_operator.cli.results import ResultFiles, ResultsUnreachableError, storage_of
from perseid_operator.cli.runs import SeenRun, seen_run

LOOK_SECONDS = 2.0
"""Between looks for the next pod while following."""
KUBEFLOW = "kubeflow"
"""Where pods run in Kubeflow's single-user installation, unless it was changed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs."""

    stage: StageName | None
    """None: all stages."""
    generation: int | None
    """None: the newest."""
    attempt: int | None
    """None: the generation's newest."""
    follow: bool
    tail: int | None
    """Lines at most of each pod; None: all."""
    pod_namespace: str | None
    """Where Kubeflow runs the pods; None: look for it."""
    storage: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """Where the output goes."""

    line: Callable[[str], None]
    """A line of a log."""
    note: Callable[[str], None]
    """A line of ours, apart from the logs."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The attempt whose logs are wanted."""

    generation: int
    number: int
    run_id: str
    recorded: AttemptStatus | None
    """What the status still holds of it."""


async def show_logs(access: Access, seen: SeenRun, wanted: Wanted, shown: Shown) -> None:
    """Print the logs. Raises ClusterError where there is nothing at all to print."""
    if wanted.stage is not None and wanted.stage not in seen.stages:
        raise ClusterError(f"{seen.name} has no stage {wanted.stage}; its stages are {', '.join(seen.stages)}")
    status = seen.known_status()
    tried = _tried(seen.name, status, wanted)
    place = _Place(access, seen, wanted, tried)
    printed: set[str] = set()
    waiting_told, over = "", False
    while True:
        pods = await place.pods()
        several = wanted.stage is None or len(pods) > 1
        for pod in pods:
            key = f"{pod.namespace}/{pod.name}"
            if key in printed or not pod.started:
                continue
            if several:
                shown.note(f"{pod.stage} (pod {pod.name})")
            if await _print_pod(access, pod, wanted, shown):
                printed.add(key)
        waiting = [pod for pod in pods if not pod.started and not pod.ended]
        told = "; ".join(f"{pod.stage} has not started: {pod.waiting} (pod {pod.name})" for pod in waiting)
        if told and told != waiting_told:
            shown.note(told)
            waiting_told = told
        if over or not wanted.follow:
            if not printed and not waiting:
                _explain_absence(seen, status, tried, wanted, shown)
            return
        over = not await _may_go_on(access, seen, tried, wanted)  # and one last look at the pods after the end
        if not over:
            await asyncio.sleep(LOOK_SECONDS)


async def _print_pod(access: Access, pod: StagePod, wanted: Wanted, shown: Shown) -> bool:
    """Print one pod's log; False where it turns out not to have one yet."""
    try:
        async for line in access.log(pod.namespace, pod.name, pod.container, follow=wanted.follow, tail=wanted.tail):
            shown.line(line)
    except RefusedError as error:
        if wanted.follow:
            return False  # between containers; look again
        shown.note(f"the log of {pod.name} cannot be read: {error}")
    return True


async def _may_go_on(access: Access, seen: SeenRun, tried: Tried, wanted: Wanted) -> bool:
    """Whether the attempt, or the one stage that is wanted, is still under way."""
    current = seen_run(await access.run(seen.namespace, seen.name)).known_status().current
    if current is None or current.run_id != tried.run_id:
        return False
    states = [state for stage, state in current.stages.items() if stage == wanted.stage]
    return not states or states[0] is StageState.RUNNING


class _Place:
    """Finds the attempt's pods, and remembers in which namespace."""

    def __init__(self, access: Access, seen: SeenRun, wanted: Wanted, tried: Tried) -> None:
        self._access = access
        self._wanted = wanted
        self._selector = f"{RUN_ID_LABEL}={tried.run_id}"
        named = wanted.pod_namespace
        # In a multi-user Kubeflow pods run beside the object, in a single-user one in Kubeflow's own namespace.
        self._namespaces: list[str | None] = [named] if named else [seen.namespace, KUBEFLOW, None]

    async def pods(self) -> list[StagePod]:
        refused: ForbiddenError | None = None
        for namespace in self._namespaces:
            try:
                found = stage_pods(await self._access.pods(namespace, self._selector))
            except ForbiddenError as error:
                refused = refused or error
                continue
            if found:
                self._namespaces = [namespace]
                return [pod for pod in found if self._wanted.stage in (None, pod.stage)]
        if refused is not None and len(self._namespaces) == 1:
            raise refused
        return []


def _tried(name: str, status: EvolutionRunStatus, wanted: Wanted) -> Tried:
    newest = status.generation
    if newest is None:
        raise ClusterError(f"{name} has not begun: there is no attempt yet, and so no logs. `perseid describe {name}`")
    index = newest.index if wanted.generation is None else wanted.generation
    if index > newest.index:
        raise ClusterError(f"{name} has no generation {index} yet; the newest is {newest.index}, counted from 0")
    generation: GenerationStatus | None = next((one for one in status.generations if one.index == index), None)
    recorded = generation.attempts if generation is not None else []
    if wanted.attempt is None and not recorded:
        raise ClusterError(f"the status of {name} no longer holds generation {index}; say which --attempt, from 0")
    number = recorded[-1].number if wanted.attempt is None else wanted.attempt
    if recorded and number > recorded[-1].number:
        raise ClusterError(f"generation {index} of {name} has no attempt {number}; its newest is {recorded[-1].number}")
    known = next((one for one in recorded if one.number == number), None)
    run_id = known.run_id if known is not None else run_id_of(status.uid, index, number)
    return Tried(index, number, run_id, known)


def _explain_absence(seen: SeenRun, status: EvolutionRunStatus, tried: Tried, wanted: Wanted, shown: Shown) -> None:
    """No pod has a log: say what the stages themselves have left, and where else logs are."""
    hint = "; if they are where you may not look unasked, name their namespace with --pods-in"
    where = "" if wanted.pod_namespace else hint
    what = f"generation {tried.generation}, attempt {tried.number} (run {tried.run_id})"
    shown.note(f"no pod of {what} is there any more, or yet{where}")
    told = False
    try:
        root = wanted.storage or storage_of(seen.run(), status)
        if root is None:
            shown.note("nothing says where the run's files are; name the place with --storage")
        else:
            files = ResultFiles(root)
            shards = seen.run().spec.pipeline.shards
            for stage in seen.stages if wanted.stage is None else (wanted.stage,):
                for name in part_names(stage, shards):
                    result = files.stage_result(tried.generation, tried.number, name)
                    if result is None:
                        continue
                    shown.line(f"{name}: {result.error or 'done'}")
                    told = True
    except (ClusterError, ResultsUnreachableError) as error:
        shown.note(str(error))
    if tried.recorded is not None and tried.recorded.message:
        shown.line(f"{tried.recorded.reason or tried.recorded.state}: {tried.recorded.message}")
        told = True
    current = status.current
    url = None if tried.recorded is None else tried.recorded.url
    if current is not None and current.run_id == tried.run_id:
        url = current.url
    shown.note(
        "Kubeflow keeps what the pods wrote where its administrator has set up an archive of logs: look at the run"
        + (f" in its UI, {url}" if url else f" {tried.run_id} in its UI")
    )
    if not told:
        raise ClusterError(f"there are no logs of {seen.name} to show")
