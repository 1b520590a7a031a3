"""The optimizers, with a learning rate and a state that a captured CUDA graph can follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from ls3dw.training.options import OptimizerOptions


def make_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions, device: torch.device) -> Optimizer:
    """Make an optimizer whose state is there from the start, all zero, so that it can be saved and put back in place.

    On a GPU the rate is a tensor: a captured step reads what it holds when it is replayed.
    """
    on_gpu = device.type == "cuda"
    rate: Any = torch.tensor(options.rate, device=device) if on_gpu else options.rate
    common = {"lr": rate, "weight_decay": options.weight_decay}
    optimizer: Optimizer
    if options.kind == "adamw":
        optimizer = AdamW(parameters, capturable=on_gpu, **common)
    elif options.kind == "rmsprop":
        # alpha and epsilon as in the paper's framework, Torch7
        optimizer = RMSprop(parameters, alpha=0.99, eps=1e-8, momentum=options.momentum, capturable=on_gpu, **common)
    else:
        optimizer = SGD(parameters, momentum=options.momentum, fused=on_gpu, **common)
    _materialise(optimizer)
    return optimizer


def _materialise(optimizer: Optimizer) -> None:
    """Let the optimizer make its state by a step that changes nothing, and set the state to zero."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    rates = [_rate_of(group) for group in optimizer.param_groups]
    set_rate(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        _set(group, rate)
    for _, value in state_tensors(optimizer):
        value.zero_()


def set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        _set(group, rate)


def _set(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _rate_of(group: dict[str, Any]) -> float:
    return float(group["lr"])


def state_tensors(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the state as (number of the parameter, dot, name)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for name, value in sorted(optimizer.state[parameter].items()):
            if isinstance(value, Tensor):
                yield f"{number}.{name}", value
