"""Selects faces to annotate again: of a source, of a subset, or the failures of a version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.metrics import FAILURE
from ls3dw.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

KINDS: Final = ("source", "subset", "failures")
"""`source:NAME`, `subset:SOURCE/NAME`, `failures:VERSION`."""

Open = Callable[[str], "pd.DataFrame"]
"""Returns the index of a version by its name; raises if there is no such version."""


def split(entry: str) -> tuple[str, str]:
    """Split `kind:name`; `ConfigurationError` for another kind."""
    kind, colon, name = entry.partition(":")
    if kind not in KINDS or not colon or not name:
        raise ConfigurationError(
            f"only {entry!r}: expected source:NAME, subset:SOURCE/NAME or failures:VERSION, such as source:300vw"
        )
    return kind, name


def failures_of(entries: Sequence[str]) -> list[str]:
    """Return the versions named by `failures:` entries."""
    return sorted({name for kind, name in map(split, entries) if kind == "failures"})


def select(index: pd.DataFrame, entries: Sequence[str], open_index: Open) -> NDArray[np.bool_]:
    """Return the rows of `index` that any entry selects (N,); all without entries.

    Letter case of sources and subsets does not matter. Raises `ConfigurationError` for an entry that selects no face,
    which is a mistake.
    """
    chosen = np.full(len(index), not entries)
    for entry in entries:
        meant = _meant(index, entry, open_index)
        if not meant.any():
            raise ConfigurationError(f"only {entry!r}: no such face; {_known(index, split(entry)[0])}")
        chosen |= meant
    return chosen


def _meant(index: pd.DataFrame, entry: str, open_index: Open) -> NDArray[np.bool_]:
    kind, name = split(entry)
    if kind == "failures":
        other = open_index(name)
        return np.asarray(index["id"].isin(other.loc[other["nme"] > FAILURE, "id"]))
    names = index["source"] if kind == "source" else index["source"] + "/" + index["subset"]
    known = [entry for entry in names.unique() if entry.casefold() == name.casefold()]
    return np.asarray(names.isin(known))


def _known(index: pd.DataFrame, kind: str) -> str:
    if kind == "failures":
        return f"that version has no error above {FAILURE:g} among the faces of this one"
    names = index["source"] if kind == "source" else index["source"] + "/" + index["subset"]
    return f"choose from {', '.join(sorted(names.unique()))}"
