"""What a run was resolved to, frozen in an owned ConfigMap: every attempt is submitted from it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from pydantic import ValidationError

from perseid import __version__
from perseid.api.base import replace
from perseid.api.names import pipeline_config_map
from perseid.api.pipeline import GenerationTemplate, StageDefaults
from perseid.api.status import Snapshot
from perseid.decide import PipelineState
from perseid_operator.compiler import CompiledPipeline, CompileError, Compiler
from perseid_operator.kfp import MAX_BODY_BYTES
from perseid_operator.kube.protocol import ConflictError, Kube, NotFoundError, Object

KEY = "pipeline.json"
MAX_PIPELINE_BYTES = MAX_BODY_BYTES // 2
"""The Workflow that KFP makes of it holds it several times over, and must fit into one object."""


MAX_KEPT = 16
"""Pipelines in memory. Most runs of a team share one."""


class SnapshotError(Exception):
    """The frozen pipeline is not what it was, and cannot be restored. The message says what to do."""


class Snapshots:
    """Makes snapshots and reads them back."""

    def __init__(self, kube: Kube, compiler: Compiler, defaults: StageDefaults | None = None) -> None:
        """`defaults`: what stages get whose run says nothing of it, from now on."""
        self._defaults = defaults or StageDefaults()
        self._kube = kube
        self._compiler = compiler
        self._kept: OrderedDict[str, CompiledPipeline] = OrderedDict()

    async def take(self, run: Object, template: GenerationTemplate) -> PipelineState:
        """Compile and freeze. Calling it again after a crash finds what the first call has made."""
        try:
            compiled = await self._compile(template)
        except CompileError as error:
            message = f"spec.pipeline does not compile to a Kubeflow pipeline: {error}"
            return PipelineState(ready=False, error=message)
        if len(compiled.text) > MAX_PIPELINE_BYTES:
            message = (
                f"the compiled pipeline has {len(compiled.text)} bytes, more than {MAX_PIPELINE_BYTES}: a Workflow of"
                " it would not fit into Kubernetes; shorten spec.pipeline.stages (labels, node selectors)"
            )
            return PipelineState(ready=False, error=message)
        metadata = run["metadata"]
        name = pipeline_config_map(metadata["name"], metadata["uid"])
        frozen = compiled
        try:
            await self._kube.create_config_map(run, name, {KEY: compiled.text}, immutable=True)
        except ConflictError:
            # Made before a crash, maybe by another version of Perseid: what is frozen first stays.
            frozen = CompiledPipeline(_text(await self._kube.get_config_map(metadata["namespace"], name)))
        self._keep(frozen)
        snapshot = Snapshot(
            config_map=name,
            pipeline_digest=frozen.digest,
            perseid_version=__version__,
            image=frozen.defaults.complete(template.pipeline).stage_image,
        )
        return PipelineState(snapshot=snapshot)

    async def load(self, run: Object, template: GenerationTemplate, snapshot: Snapshot) -> CompiledPipeline:
        """The frozen pipeline. One whose ConfigMap was deleted is made again where it comes out the same.

        Raises SnapshotError where it does not, and KubeErrors.
        """
        kept = self._kept.get(snapshot.pipeline_digest)
        if kept is not None:
            return kept  # a digest says all that the ConfigMap could
        namespace = run["metadata"]["namespace"]
        try:
            found = CompiledPipeline(_text(await self._kube.get_config_map(namespace, snapshot.config_map)))
        except NotFoundError:
            try:
                found = await self._compile(template)
            except CompileError as error:
                raise SnapshotError(
                    f"{_lost(namespace, snapshot)}, and it does not compile any more: {error}"
                ) from error
            if found.digest == snapshot.pipeline_digest:
                await self._kube.create_config_map(run, snapshot.config_map, {KEY: found.text}, immutable=True)
        if found.digest != snapshot.pipeline_digest:
            raise SnapshotError(
                f"{_lost(namespace, snapshot)} or was changed: what is there has the digest {found.digest}, the status"
                f" says {snapshot.pipeline_digest} (made by Perseid {snapshot.perseid_version})"
            )
        self._keep(found)
        return found

    async def _compile(self, template: GenerationTemplate) -> CompiledPipeline:
        try:
            completed = replace(template, pipeline=self._defaults.complete(template.pipeline))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise CompileError(
                f"with the operator's defaults of stages it has too much in {where}: {error.errors()[0]['msg']}"
            ) from error
        return (await self._compiler.compile(completed)).with_defaults(self._defaults)

    def _keep(self, pipeline: CompiledPipeline) -> None:
        self._kept[pipeline.digest] = pipeline
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def _text(config_map: Object) -> str:
    data: dict[str, Any] = config_map.get("data") or {}
    return str(data.get(KEY, ""))


def _lost(namespace: str, snapshot: Snapshot) -> str:
    return f"the ConfigMap {namespace}/{snapshot.config_map} with the run's frozen pipeline was deleted"
