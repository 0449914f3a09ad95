"""A model spread over the processes of one run (FSDP): each keeps a part of the weights, and fetches others as it goes.

With adapters only the frozen base is spread; the adapters are small, every process has them whole, and their gradients
are averaged. torch's own `fully_shard` rather than accelerate's: that one knows no CPUs, where all of this is tested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from perseid.training.checkpoint import Checkpoint
from perseid.training.errors import TrainingError
from perseid.training.model import require_same_names

T = TypeVar("T")


def spread(model: torch.nn.Module, accelerator: Accelerator) -> None:
    """Spread the model over all processes, block by block, so that a step fetches one block's weights at a time."""
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    whole = {one for one in model.parameters() if one.requires_grad} if isinstance(model, PeftModel) else set()
    names = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh, ignored_params=whole)
    fully_shard(model, mesh=mesh, ignored_params=whole)


def average_whole_gradients(parameters: Mapping[str, torch.nn.Parameter], accelerator: Accelerator) -> None:
    """Average over processes the gradients that spreading does not average by itself."""
    for parameter in parameters.values():
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the parts of all processes, which must all ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """The optimizer's state with the parts of all processes, on the CPU; nothing of it where it is not to be kept."""
    state = optimizer.state_dict()
    gathered: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            found = whole(value) if isinstance(value, torch.Tensor) else value
            if keep:
                gathered.setdefault(index, {})[name] = found.cpu() if isinstance(found, torch.Tensor) else found
    return {"state": gathered, "param_groups": state["param_groups"]}


def from_main(accelerator: Accelerator, make: Callable[[], T]) -> T:
    """What the main process makes, in all processes: others may be on machines that do not see its files.

    Its TrainingError is everybody's.
    """
    if accelerator.num_processes == 1:
        return make()
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = make()
        except TrainingError as error:
            box[1] = str(error)
    torch.distributed.broadcast_object_list(box, src=0, device=accelerator.device)
    if box[1] is not None:
        raise TrainingError(box[1])
    made: T = box[0]
    return made


class _Shaped:
    """In place of a tensor that is as big as its parameter: it is sent by itself."""


def spread_checkpoint(
    load: Callable[[], Checkpoint | None],
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> Checkpoint | None:
    """What the main process loads, in all processes: of each tensor the part that is theirs.

    `parameters` are the trained ones by name. Raises TrainingError where the checkpoint is one of others.
    """
    if accelerator.num_processes == 1:
        return load()
    ordered = [one for group in optimizer.param_groups for one in group["params"]]
    loaded: list[Checkpoint] = []

    def outline() -> Checkpoint | None:
        """It without its big tensors."""
        checkpoint = load()
        if checkpoint is None:
            return None
        require_same_names(parameters, checkpoint.weights)
        loaded.append(checkpoint)
        state = {
            index: {name: _Shaped() if _is_shaped(value, ordered[index]) else value for name, value in values.items()}
            for index, values in checkpoint.optimizer["state"].items()
        }
        return dataclasses.replace(checkpoint, weights={}, optimizer={**checkpoint.optimizer, "state": state})

    found = from_main(accelerator, outline)
    if found is None:
        return None
    mine = loaded[0] if loaded else None
    weights = {name: _sent(None if mine is None else mine.weights[name], one) for name, one in parameters.items()}
    state = {
        index: {
            name: _sent(None if mine is None else mine.optimizer["state"][index][name], ordered[index])
            if isinstance(value, _Shaped)
            else value
            for name, value in values.items()
        }
        for index, values in found.optimizer["state"].items()
    }
    return dataclasses.replace(found, weights=weights, optimizer={**found.optimizer, "state": state})


def _is_shaped(value: Any, parameter: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def _sent(tensor: torch.Tensor | None, model: torch.Tensor) -> torch.Tensor:
    """The main process's tensor in all processes, spread as the one that it belongs to; the others give None."""
    if tensor is None:
        tensor = torch.empty(model.shape, dtype=model.dtype)
    tensor = tensor.to(model.device, model.dtype)
    if isinstance(model, DTensor):
        return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=0)
    torch.distributed.broadcast(tensor, src=0)
    return tensor
