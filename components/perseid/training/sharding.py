"""A model spread over the processes of one run (FSDP): each keeps a part of the weights, and fetches others as it goes.

With adapters only the frozen base is spread; the adapters are small, every process has them whole, and their gradients
are averaged. torch's own `fully_shard` rather than accelerate's: that one knows no CPUs, where all of this is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


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


def spread_like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """A whole tensor, as the one that it belongs to is spread."""
    if not isinstance(model, DTensor):
        return tensor
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)


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


def restore_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Set the optimizer to a whole state."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    spread_out = {
        index: {
            name: spread_like(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({"state": spread_out, "param_groups": state["param_groups"]})
