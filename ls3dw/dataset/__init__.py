"""A data set on disk: its folder, shards, index and versions, and the subsets drawn from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.dataset.open import Dataset, Face, open_dataset
    from ls3dw.dataset.store import Store
    from ls3dw.dataset.summary import summarise

__all__ = ["Dataset", "Face", "Store", "open_dataset", "summarise"]

_HOMES = {"Dataset": "open", "Face": "open", "Store": "store", "open_dataset": "open", "summarise": "summary"}
__getattr__, __dir__ = door(__name__, _HOMES)
