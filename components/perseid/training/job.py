"""One training run as a piece of work that is done once: found finished, gone on with, or begun, and then committed.

What it learns, and from what, is the caller's (`finetune`, `preference`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from perseid import __version__
from perseid.api.training import FinetuneSpec
from perseid.data.records import Dropped
from perseid.engines.identity import content_id
from perseid.training.batching import ItemT
from perseid.training.checkpoint import discard_checkpoints, load_checkpoint
from perseid.training.errors import TrainingError
from perseid.training.manifest import (
    ModelManifest,
    PreferenceMetrics,
    TrainingDType,
    library_versions,
    read_manifest,
)
from perseid.training.model import (
    commit,
    make_trainable,
    merged,
    restore_parameters,
    trained_parameters,
    write_model,
)
from perseid.training.objective import Objective
from perseid.training.sharding import from_main
from perseid.training.trainer import Trainer, TrainingProgress


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A model directory and what it was made of."""

    path: Path
    manifest: ModelManifest
    reused: bool
    """It was there already, made of the same base, data and configuration."""
    resumed_from_step: int | None
    """Steps that an earlier, interrupted call had done; None where this call did all of it, or none."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a run's weights are a function of, and where they go."""

    kind: str
    """Name of the run's directory in `work_dir`, before its key."""
    output: Path
    work_dir: Path
    base_id: str
    base_ref: str
    data: str
    """`manifest.data_digest`."""
    config: str
    """`manifest.config_digest`."""
    spec: FinetuneSpec
    seed: int
    dtype: TrainingDType

    @property
    def directory(self) -> Path:
        """Where the run keeps what it needs to go on: of its own for each base, data and configuration."""
        key = hashlib.sha256(f"{self.base_id}\n{self.data}\n{self.config}".encode()).hexdigest()[:16]
        return self.work_dir / f"{self.kind}-{key}"

    def finished(self, accelerator: Accelerator) -> TrainingResult | None:
        """The committed result, None where there is none. Raises TrainingError where something else lies there.

        The files are the main process's; all must ask, for one and the same training.
        """
        what = (self.base_id, self.data, self.config)
        if from_main(accelerator, lambda: what) != what:
            raise TrainingError(f"the processes were given different work: {what} is not the main process's")
        manifest = from_main(accelerator, self._manifest)
        return None if manifest is None else TrainingResult(self.output, manifest, reused=True, resumed_from_step=None)

    def run(
        self,
        items: Sequence[ItemT],
        dropped: Sequence[Dropped],
        objective: Objective[ItemT],
        plain: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        on_progress: Callable[[TrainingProgress], None] | None,
        reload: Callable[[], PreTrainedModel],
        measure: Callable[[torch.nn.Module], PreferenceMetrics] | None = None,
    ) -> TrainingResult:
        """Train `plain` on the items and commit the result. `measure` looks at the trained model before it is merged;
        `reload` gives `plain` anew, where several processes have only parts of it in the end.

        The caller's randomness stays as it was.
        """
        with torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []):
            trainer = Trainer(
                plain, items, objective, self.spec, self.seed, self.dtype, accelerator, tokenizer.pad_token_id or 0
            )
            resumed_from = trainer.restore(partial(load_checkpoint, self.directory))
            trainer.train(self.directory, on_progress)

        metrics = trainer.metrics()
        trained = trainer.model
        if accelerator.num_processes > 1:
            weights = trainer.whole_weights()
            trained = self._put_together(weights, reload()) if accelerator.is_main_process else trained
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            unfinished = self.output.with_name(f".{self.output.name}.unfinished")
            preference = None if measure is None else measure(trained)
            write_model(unfinished, merged(trained), tokenizer, self.dtype)
            manifest = ModelManifest(
                model_id=content_id(unfinished),
                base_model_id=self.base_id,
                base_ref=self.base_ref,
                data_digest=self.data,
                config_digest=self.config,
                spec=self.spec,
                seed=self.seed,
                dtype=self.dtype,
                metrics=metrics,
                preference=preference,
                dropped=tuple(dropped),
                perseid_version=__version__,
                libraries=library_versions(),
            )
            commit(unfinished, self.output, manifest)
            discard_checkpoints(self.directory)
        committed = from_main(accelerator, self._manifest)
        assert committed is not None, "the main process has just written it"
        return TrainingResult(self.output, committed, reused=False, resumed_from_step=resumed_from)

    def _put_together(self, weights: dict[str, torch.Tensor], plain: PreTrainedModel) -> torch.nn.Module:
        """The trained model from weights that were spread over processes."""
        with torch.random.fork_rng(devices=[]):
            model = make_trainable(plain, self.spec)
        restore_parameters(trained_parameters(model), weights)
        return model

    def _manifest(self) -> ModelManifest | None:
        output = self.output
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return None
        manifest = read_manifest(output) if output.is_dir() else None
        if manifest is None:
            raise TrainingError(f"{output} exists and is not a model of Perseid's. Remove it or choose another output")
        wanted = (self.base_id, self.data, self.config)
        if (manifest.base_model_id, manifest.data_digest, manifest.config_digest) != wanted:
            raise TrainingError(
                f"{output} holds a model of another base, other data or another configuration. Remove it or choose "
                "another output"
            )
        return manifest


def nothing_to_learn(given: int, items_are: str, dropped: Sequence[Dropped]) -> TrainingError:
    """The error of a run whose samples or pairs were all dropped, or which was given none."""
    reasons = sorted({drop.reason for drop in dropped})
    return TrainingError(f"none of {given} {items_are} can be learned from (dropped as {reasons or 'none given'})")
