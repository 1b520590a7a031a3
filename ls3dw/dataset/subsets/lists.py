"""Lists of faces: read from files of ids, written as subsets of a data set."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ls3dw.core.files import dump_json, is_safe_name
from ls3dw.dataset.gate import reading
from ls3dw.dataset.index import write_subset_files
from ls3dw.dataset.open import Dataset
from ls3dw.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    import pandas as pd

METADATA: Final = b"ls3dw"
"""Key of the parquet metadata that holds, as JSON, how a subset was drawn."""


def need_columns(index: pd.DataFrame, *names: str) -> None:
    """Raise `DatasetError` if the index lacks columns because an older ls3dw wrote it."""
    missing = [name for name in names if name not in index.columns]
    if missing:
        raise DatasetError(f"the index has no {', '.join(missing)}: an older ls3dw wrote it; build the data set again")


def write_subset(
    dataset: Dataset,
    name: str,
    columns: Mapping[str, Any],
    how: Mapping[str, Any],
    others: Mapping[str, bytes] | None = None,
) -> Path:
    """Write subsets/<version>/<name>.parquet and <name>.json.

    how: how it was drawn, for the JSON file and the parquet metadata; others: further files, by suffix.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = dataset.store.subset_file(dataset.version, name)
    check_name(dataset, name)
    note = dump_json({"version": dataset.version, **how})
    table = pa.table({key: pa.array(_plain(values)) for key, values in columns.items()})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({METADATA: note}), buffer)
    # The JSON first: a subset is never there without it.
    files = {f"{name}.json": note, f"{name}.parquet": buffer.getvalue()}
    files |= {f"{name}{suffix}": data for suffix, data in (others or {}).items()}
    write_subset_files(dataset.store, dataset.version, name, files)
    return path


def check_name(dataset: Dataset, name: str) -> None:
    """Check that a subset may have this name: a safe name, and not one that the build wrote."""
    if not is_safe_name(name) or "." in name:
        raise ConfigurationError(f"subset name {name!r}: expected letters, digits, '_', '+' and '-'")
    path = dataset.store.subset_file(dataset.version, name).relative_to(dataset.store.root).as_posix()
    if any(file["path"] == path for file in dataset.manifest["files"]):
        raise ConfigurationError(f"{path}: the build wrote it, and the manifest vouches for it; choose another --name")


def _plain(values: Any) -> Any:
    """Turn arrays of Python strings into lists: pyarrow reads empty ones as text, too."""
    return [str(value) for value in values] if np.asarray(values).dtype.kind in "OU" else np.asarray(values)


def read_ids(path: Path) -> list[str]:
    """Read the ids in a file: column `id` of .parquet or .csv, or the lines of .txt."""
    with reading(path, "list with a column `id`"):
        if path.suffix == ".txt":
            ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        elif path.suffix in (".parquet", ".csv"):
            ids = _column(path, "id")
        else:
            raise DatasetError(f"{path}: expected .parquet, .csv or .txt")
    if not ids:
        raise DatasetError(f"{path}: no ids in it")
    return ids


def _column(path: Path, name: str) -> list[str]:
    import pandas as pd

    if path.suffix == ".parquet":
        table = pd.read_parquet(path, columns=[name])
    else:
        table = pd.read_csv(path, usecols=[name], dtype=str, keep_default_na=False)
    return [str(value) for value in table[name]]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read a .csv without header, two ids a line: faces of one picture that neither name nor hash shows."""
    import csv

    with reading(path, "list of pairs"), path.open(newline="", encoding="utf-8") as file:
        rows = [tuple(cell.strip() for cell in row) for row in csv.reader(file) if row]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != 2 or not all(row)), None)
    if wrong is not None:
        raise DatasetError(f"{path}: line {wrong}: expected two ids with a comma between them")
    return [(row[0], row[1]) for row in rows]
