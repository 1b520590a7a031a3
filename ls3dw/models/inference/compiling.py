"""Compiles the parts of folded networks that repeat: each once, kept between runs, and never for long."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn

from ls3dw.models.inference.folding import Folded, FoldedBottleneck, Stack, Stem
from ls3dw.models.weights.cache import home

log = logging.getLogger(__name__)

LONGEST: Final = 8.0
"""Seconds after which no further part is compiled; those that are not run eagerly, with the same result. What was
compiled is kept, so that the next run gets further. Kernels of our own take a GPU as long again."""

VARIANTS: Final = 64
"""Sorts of one part that may be compiled: the depth network's blocks are of eight, times the batch sizes."""

PARTS: Final = (Stem, Stack, FoldedBottleneck)


@dataclass
class Sort:
    """Parts that share their code: the same layers and the same shape of input, of which one is kept."""

    example: Tensor
    parts: list[nn.Module] = field(default_factory=list)


def compile_parts(network: Folded, maps: Tensor) -> None:
    """Compile a network for maps of this shape, which its first convolution gives. Where it cannot be, say so.

    All stacks of a FAN are of one sort, with those of other networks as wide: one is compiled, the others take it over.
    """
    # Set for compilers that begin in this process: what they made lies there for the next run.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "compiled"))
    began = time.perf_counter()
    # Where most parts share their code, most is gained.
    sorts = sorted(find_sorts(network, maps), key=lambda sort: -len(sort.parts))
    done = 0
    try:
        for sort in sorts:
            if time.perf_counter() - began > LONGEST:
                break
            _compile(sort)
            done += 1
    except torch.cuda.OutOfMemoryError:
        _undo(sorts)
        raise
    # What compilers raise where there is none, or a broken one, has no common class of its own.
    except RuntimeError as error:
        _undo(sorts)
        _say_once(f"no compiling here ({str(error).strip().splitlines()[0]}): the networks run as they are")
        return
    log.info("compiled %d of %d sorts of parts in %.1f s", done, len(sorts), time.perf_counter() - began)


def find_sorts(network: Folded, maps: Tensor) -> list[Sort]:
    """Run a network once and list its parts by sort."""
    found: dict[str, Sort] = {}

    def note(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        key = f"{tuple(inputs[0].shape)} {part}"
        found.setdefault(key, Sort(inputs[0].clone())).parts.append(part)

    with ExitStack() as stack:
        for part in network.modules():
            if isinstance(part, PARTS):
                stack.callback(part.register_forward_pre_hook(note).remove)
        network.body(maps.clone())
    return list(found.values())


def _compile(sort: Sort) -> None:
    for part in sort.parts:
        part.compile(dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=VARIANTS):
        sort.parts[0](sort.example)


@cache
def _say_once(text: str) -> None:
    log.info(text)


def _undo(sorts: list[Sort]) -> None:
    for sort in sorts:
        for part in sort.parts:
            part._compiled_call_impl = None
