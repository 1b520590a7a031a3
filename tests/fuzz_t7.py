"""Damages Torch7 files in every way and reads them: each must be a value or an error, in bounded memory and time.

    python tests/fuzz_t7.py --count 100000 --seed 1        files of this project, and real ones where they are at hand

Files are read whole (`load_all`), and those that hold a network are imported, in this process, whose address space may
grow by 500 MB. Anything but an error of ls3dw ends the run with a traceback, which names the file kept in `--folder`.
"""

from __future__ import annotations

import argparse
import re
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import REAL
from t7_graphs import Form, graph_of
from t7_spelling import NAMES, spell

from ls3dw.core.formats.t7 import Key, Layout, T7Object, dumps, load_all, loads
from ls3dw.errors import Ls3dwError
from ls3dw.models import FAN
from ls3dw.models.weights import torch7

MEMORY = 500 << 20
LONGEST = 60
"""Seconds after which a file counts as one that hangs the reader."""

HEAVY_SHARE = 0.01
"""Share of files made from networks: reading them takes a hundred times as long."""

NUMBERS = (-1, 0, 1, 2, 3, 4, 8, 255, 2**15, 2**24, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))


def small_files() -> list[bytes]:
    """Files of a few hundred bytes that hold everything there is."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 100, (3, 2)).astype(name) for name in NAMES}
    base = np.arange(24.0)
    circle: dict[object, object] = {1: "a", "b": [1.5, True, None], "views": [base, base[3:9], base.reshape(4, 6).T]}
    circle |= {"self": circle, Key(circle): T7Object("nn.Identity", 1, {"owner": circle})}
    layouts = [Layout(), Layout(text=True), Layout(long_size=4), Layout(big_endian=True)]
    files = [spell({1: arrays, 2: {1: "text"}}, layout) for layout in layouts]
    files += [dumps(circle), dumps(rng.uniform(0, 450, (68, 2)))]
    return files + [path.read_bytes() for path in sorted(REAL.glob("t7/landmarks/*.t7"))]


def heavy_files() -> list[bytes]:
    """Files with networks."""
    torch.manual_seed(0)
    network = FAN(1, 16, pooling="max", stem=4)
    files = [dumps(graph_of(network, Form())), dumps(graph_of(network, Form(1, True, True, True, "cudnn")))]
    return files + [path.read_bytes() for path in sorted(REAL.glob("t7/*/model.t7"))]


def flip(data: bytearray, rng: np.random.Generator, at: Callable[[], int]) -> None:
    for _ in range(rng.integers(1, 9)):
        data[at()] ^= 1 << int(rng.integers(8))


def cut(data: bytearray, rng: np.random.Generator, at: Callable[[], int]) -> None:
    del data[at() :]


def blow_up(data: bytearray, rng: np.random.Generator, at: Callable[[], int]) -> None:
    """Put another number where a length, size, stride, offset or index may stand."""
    size = int(rng.choice([4, 8]))
    place = at()
    number = NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * size)
    data[place : place + size] = number.to_bytes(size, "little")


def blow_up_text(data: bytearray, rng: np.random.Generator, at: Callable[[], int]) -> None:
    data[at() : at()] = str(NUMBERS[rng.integers(len(NUMBERS))]).encode()


def move(data: bytearray, rng: np.random.Generator, at: Callable[[], int]) -> None:
    """Put a piece of the file where another was."""
    start, target, size = at(), at(), int(rng.integers(1, 64))
    data[target : target + int(rng.integers(0, 64))] = data[start : start + size]


WAYS = (flip, cut, blow_up, blow_up_text, move)


def damage(original: bytes, heads: list[int], rng: np.random.Generator) -> bytes:
    """Return a file damaged in one to three ways, often near the heads of objects, where lengths stand."""
    data = bytearray(original)

    def at() -> int:
        near = (
            heads[rng.integers(len(heads))] + int(rng.integers(-16, 96)) if rng.random() < 0.7 else rng.integers(2**40)
        )
        return int(near) % max(len(data), 1)

    for _ in range(rng.integers(1, 4)):
        if data:
            WAYS[rng.integers(len(WAYS))](data, rng, at)
    return bytes(data)


def spoil(original: bytes, rng: np.random.Generator) -> bytes:
    """Return a file that is whole, but where one to three fields of the network's objects hold something else."""
    root = loads(original)
    tables = tables_in(root)
    things: list[Any] = [
        *NUMBERS,
        None,
        True,
        "text",
        {},
        np.zeros(3, np.float32),
        np.empty(0),
        T7Object("nn.ReLU"),
        root,
    ]
    things.append(np.broadcast_to(np.float32(1), (4, 4, 3, 3)))
    for _ in range(rng.integers(1, 4)):
        table, other = (tables[rng.integers(len(tables))] for _ in range(2))
        key = list(table)[rng.integers(len(table))]
        if rng.random() < 0.2:
            del table[key]
        elif rng.random() < 0.5:
            table[key] = things[rng.integers(len(things))]
        else:
            table[key] = list(other.values())[rng.integers(len(other))]
        tables = [entry for entry in tables if entry]
    return dumps(root)


def tables_in(root: Any) -> list[dict[Any, Any]]:
    """Return all tables in a value that are not empty, those of objects too."""
    found: dict[int, dict[Any, Any]] = {}
    waiting = [root]
    while waiting:
        value = waiting.pop()
        table = value.fields if isinstance(value, T7Object) else value
        if isinstance(table, dict) and id(table) not in found:
            found[id(table)] = table
            waiting.extend(table.values())
    return [table for table in found.values() if table]


def attempt(path: Path) -> str:
    """Read a file and import its network; say how far it came."""
    try:
        values = load_all(path)
    except Ls3dwError:
        return "error of the reader"
    try:
        if isinstance(values[0], T7Object):
            torch7.convert(values[0], str(path))
            return "network"
    except Ls3dwError:
        return "error of the import"
    return "value"


def limit_memory() -> None:
    """Let the address space grow by `MEMORY` from here on."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def run(count: int, seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    small, heavy = small_files(), heavy_files()
    heads = {data: [match.start() for match in re.finditer(rb"V 1", data)] or [0] for data in (*small, *heavy)}
    torch.set_num_threads(1)
    path = folder / "damaged.t7"
    path.write_bytes(heavy[0])
    assert attempt(path) == "network"  # and all that is imported on first use is imported now
    limit_memory()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    results: Counter[str] = Counter()
    slowest = 0.0
    for number in range(count):
        turn = number % (2 * round(1 / HEAVY_SHARE))
        if turn == 0:
            path.write_bytes(spoil(heavy[rng.integers(2)], rng))
        else:
            files = heavy if turn == 1 else small
            data = files[rng.integers(len(files))]
            path.write_bytes(damage(data, heads[data], rng))
        begun = time.monotonic()
        signal.alarm(LONGEST)
        results[attempt(path)] += 1
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - begun)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{count} files in {time.monotonic() - started:.0f} s, slowest {slowest:.2f} s, memory grew {grown >> 10} MB")
    print(", ".join(f"{what}: {number}" for what, number in results.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the damaged file is written; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options.count, options.seed, options.folder or Path(folder))


if __name__ == "__main__":
    main()
