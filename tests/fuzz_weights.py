"""Damages weights files of every format in many ways and imports them: each must end in one clear error, or be whole.

    python tests/fuzz_weights.py --count 20000

Bits flipped, bytes overwritten, lengths blown up, parts cut out, doubled or cut off; half of the damage goes to head
and tail, where the structure lies. A file that is damaged only in its numbers cannot be told from another network's
unless its format has checksums (zip archives have): it is counted as `read`. Exits with 1 if a file made any error but
`ModelError`, took longer than the limit, or if the memory grew by more than 500 MB.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ls3dw.errors import ModelError
from ls3dw.models import FAN
from ls3dw.models.weights.importing import ImportOptions, import_weights

SLOWEST = 10.0
MOST_MEMORY = 500.0
STRUCTURE = 48 * 1024


def make_files(folder: Path) -> list[Path]:
    """Write one small FAN in every format that is imported."""
    torch.manual_seed(0)
    network = FAN(1, 16).eval()
    weights = network.state_dict()
    torch.save(weights, folder / "archive.pth")
    torch.save(weights, folder / "stream.pth.tar", _use_new_zipfile_serialization=False)
    checkpoint: dict[str, Any] = {"epoch": 1, "best": np.float64(1), "state_dict": dict(weights)}
    torch.save(checkpoint, folder / "checkpoint.pth.tar", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "tensors.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.rand(1, 3, 256, 256), check_trace=False).save(str(folder / "script.zip"))  # type: ignore[no-untyped-call]
    return sorted(folder.iterdir())


def place(size: int, rng: np.random.Generator) -> int:
    """Choose a byte: half the time near the head or the tail."""
    near = min(size, int(rng.exponential(STRUCTURE / 4)) + 1)
    choice = rng.integers(4)
    if choice < 2:
        return int(rng.integers(size))
    return near - 1 if choice == 2 else size - near


def flip(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 9))):
        data[place(len(data), rng)] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    at = place(len(data), rng)
    data[at : at + 8] = rng.bytes(min(8, len(data) - at))


def blow_up(data: bytearray, rng: np.random.Generator) -> None:
    """Put a huge number where a length may be."""
    at, width = place(len(data), rng), int(rng.choice([1, 2, 4, 8]))
    data[at : at + width] = (b"\xff" * (width - 1) + b"\x7f")[: len(data) - at]


def cut_off(data: bytearray, rng: np.random.Generator) -> None:
    del data[place(len(data), rng) :]


def cut_out(data: bytearray, rng: np.random.Generator) -> None:
    at = place(len(data), rng)
    del data[at : at + int(rng.integers(1, 64))]


def double(data: bytearray, rng: np.random.Generator) -> None:
    at, length = place(len(data), rng), int(rng.integers(1, 64))
    data[at:at] = data[at : at + length]


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    flip,
    overwrite,
    blow_up,
    cut_off,
    cut_out,
    double,
)


def memory() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(count: int, seed: int) -> Mapping[str, int]:
    """Import `count` damaged files; return how many ended how. Any other error than `ModelError` ends it."""
    rng = np.random.default_rng(seed)
    ended: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LS3DW_HOME"] = str(folder / "home")
        whole = folder / "whole"
        whole.mkdir()
        files = {path: path.read_bytes() for path in make_files(whole)}
        options = ImportOptions(kind="2d", name="fuzzed", replace=True)
        for path in files:
            import_weights(path, options)
        before, slowest = memory(), 0.0
        for _ in range(count):
            path = list(files)[int(rng.integers(len(files)))]
            data = bytearray(files[path])
            DAMAGES[int(rng.integers(len(DAMAGES)))](data, rng)
            target = folder / path.name
            target.write_bytes(data)
            start = time.monotonic()
            ended[f"{path.name}: {_outcome(target, options)}"] += 1
            slowest = max(slowest, time.monotonic() - start)
    if slowest > SLOWEST or memory() - before > MOST_MEMORY:
        raise SystemExit(f"too much: slowest {slowest:.1f} s, memory +{memory() - before:.0f} MB")
    print(f"{count} files: slowest {slowest:.2f} s, memory +{memory() - before:.0f} MB over {before:.0f} MB")
    return ended


def _outcome(path: Path, options: ImportOptions) -> str:
    try:
        import_weights(path, options)
    except ModelError as error:
        if "\n" in str(error):
            raise SystemExit(f"an error of several lines: {error}") from error
        return "error"
    return "read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for how, count in sorted(run(given.count, given.seed).items()):
        print(f"  {how:<32} {count}")


if __name__ == "__main__":
    main()
