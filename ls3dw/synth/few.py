"""What only few pictures of a batch have is worked out for those alone, without waiting for the device."""

from __future__ import annotations

import math

from torch import Tensor

from ls3dw.synth.draws import Draws


def few(flag: Tensor, share: float, draws: Draws) -> Tensor:
    """Return the places (n,) of the flags (B,) that are set, and of others to make up a number known beforehand.

    Looking for the set flags would wait for the device. There is room for half more than the share:
    beyond that, flags are left out.
    """
    room = min(len(flag), math.ceil(1.5 * share * len(flag)) + 1)
    return (flag + 0.5 * draws.uniform(len(flag))).topk(room).indices
