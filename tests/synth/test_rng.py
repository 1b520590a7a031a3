"""Random numbers: equal for equal seeds and keys, independent for others."""

from __future__ import annotations

import torch

from ls3dw.synth.rng import SplitRng, hash_seed, keyed_rng


def test_numbers_repeat_and_children_do_not_depend_on_what_was_drawn() -> None:
    one, other = SplitRng(5), SplitRng(5)
    other.normal(3)
    assert torch.equal(one.child(2, 7).uniform(4), other.child(2, 7).uniform(4))
    assert torch.equal(SplitRng(5).normal(4), SplitRng(5).normal(4))
    firsts = {float(rng.uniform(1)) for rng in (SplitRng(5), one.child(0), one.child(0, 0), one.child(1), SplitRng(6))}
    assert len(firsts) == 5


def test_keys_give_generators() -> None:
    cpu = torch.device("cpu")
    assert torch.equal(keyed_rng(cpu, 1, "step", 2).normal(4), keyed_rng(cpu, 1, "step", 2).normal(4))
    assert len({hash_seed(1, 2), hash_seed(12), hash_seed(2, 1), hash_seed("1/3"), hash_seed(1)}) == 5
    assert 0 <= hash_seed("seed") < 2**63
