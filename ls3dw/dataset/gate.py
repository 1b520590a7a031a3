"""The gate for everything read from a data set's folder, which somebody else may have made.

Names, paths, types and sizes are checked here; whatever is wrong becomes one `DatasetError`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ls3dw.core.files import is_safe_name, read_json
from ls3dw.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Shape: TypeAlias = Any
"""What a JSON value must look like: a type, None, a test of the value, `[shape]` for a list, `{...: shape}` for any
keys, `{"key": shape, "key?": shape}` for known ones (others are ignored), or a tuple of alternatives."""

PASSING: Final = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EAGAIN}
    | {errno.ENOLCK, errno.ETIMEDOUT, errno.EBUSY, errno.EINTR, errno.ENOTCONN}
)
"""Errors that say nothing about the file's bytes: it could not be read now."""


class UnreadableError(DatasetError):
    """A file that could not be read now, which says nothing about its bytes."""


_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_MAX_EXPANSION: Final = 1000
"""Times that the columns of a table may be larger than its file; ours stay below 20."""


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be written as UTF-8: JSON may hold half a surrogate pair."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value


def is_digest(value: Any) -> bool:
    """Return whether a value is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def is_path(value: Any) -> bool:
    """Return whether a value is a path inside the data set: relative, with '/', each part a safe name."""
    return isinstance(value, str) and 0 < len(value) <= 1024 and all(map(is_safe_name, value.split("/")))


def one_of(*names: str) -> Callable[[Any], bool]:
    """Return a test of whether a value is one of some texts."""
    return lambda value: isinstance(value, str) and value in names


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def check(value: Any, shape: Shape, path: Path) -> None:
    """Raise `DatasetError` where a JSON value does not have the shape; the message names the place in it."""
    if fault := _fault(value, shape, ""):
        raise DatasetError(f"{path}: {fault}; damaged or not written by ls3dw: run ls3dw verify or get a copy")


def _fault(value: Any, shape: Shape, at: str) -> str:
    if isinstance(shape, tuple):
        faults = [_fault(value, one, at) for one in shape]
        return "" if "" in faults else faults[-1]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{at or 'it'}: expected a list"
        return next(filter(None, (_fault(one, shape[0], f"{at}[{i}]") for i, one in enumerate(value))), "")
    if isinstance(shape, dict):
        return _record_fault(value, shape, at)
    if shape is None:
        fits = value is None
    elif shape is str:
        fits = is_text(value)
    elif isinstance(shape, type):
        fits = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    else:
        # `str.__eq__` returns NotImplemented for other types.
        fits = shape(value) is not NotImplemented and shape(value)
    return "" if fits else f"{at or 'it'}: unexpected {str(value)[:60]!r}"


def _record_fault(value: Any, shape: dict[Any, Shape], at: str) -> str:
    if not isinstance(value, dict):
        return f"{at or 'it'}: expected names and values"
    if ... in shape:
        pairs = [(key, shape[...]) for key in value]
    else:
        missing = [key for key in shape if not key.endswith("?") and key not in value]
        if missing:
            return f"{at or 'it'}: has no {missing[0]!r}"
        pairs = [(key.rstrip("?"), one) for key, one in shape.items() if key.rstrip("?") in value]
    if not all(map(is_text, value)):
        return f"{at or 'it'}: a name that is not text"
    return next(filter(None, (_fault(value[key], one, f"{at}.{key}".lstrip(".")) for key, one in pairs)), "")


def read_checked(path: Path, shape: Shape) -> Any:
    """Read a JSON file of the data set and check its shape."""
    values = read_json(path)
    check(values, shape, path)
    return values


def inside(root: Path, path: Path) -> Path:
    """Return `path` after checking that no symbolic link below `root` leads out of the data set."""
    try:
        held = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path}: not a path that can be followed ({error})") from error
    if not held:
        raise DatasetError(
            f"{path}: a symbolic link that leads out of {root}; if you trust it, copy the data set with cp -rL"
        )
    return path


def relative_id(face: str) -> PurePosixPath:
    """Return a face's id as a relative path; `DatasetError` for one that would leave its folder."""
    parts = face.split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode("utf-8", "replace")) > 240 for part in parts):
        raise DatasetError(f"{face!r}: an id that is no relative path; the data set is damaged or not to be trusted")
    return PurePosixPath(*parts)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn every error of a reading library into one `DatasetError` that tells damage from a read that failed."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as error:
        number = error.errno or _errno_in(str(error))
        if number in PASSING:
            reason = error.strerror or str(error)
            raise UnreadableError(
                f"{path}: could not be read ({reason}); check disk and permissions, then try again"
            ) from error
        if number == errno.ENOENT:
            raise DatasetError(f"{path}: missing; run ls3dw verify") from error
        raise DatasetError(f"{path}: not a readable {what} ({error}); run ls3dw verify") from error
    # h5py, Arrow and pandas raise a dozen kinds of errors for damaged files.
    except Exception as error:
        detail = str(error) or type(error).__name__
        raise DatasetError(f"{path}: not a readable {what} ({detail[:200]}); run ls3dw verify") from error


def _errno_in(text: str) -> int:
    """Read the error number that HDF5 writes into its messages."""
    found = re.search(r"errno = (\d+)", text)
    return int(found[1]) if found else 0


def read_table(
    root: Path, path: Path, required: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType] = {}
) -> pd.DataFrame:
    """Read a parquet table and check that it has these columns with these types, without missing values."""
    import pandas as pd
    import pyarrow.parquet as pq

    inside(root, path)
    with reading(path, "parquet table"):
        size = path.stat().st_size
        with pq.ParquetFile(path) as file:
            described, schema = file.metadata, file.schema_arrow
            groups = (described.row_group(number) for number in range(described.num_row_groups))
            if described.num_rows > size or sum(group.total_byte_size for group in groups) > _MAX_EXPANSION * size:
                raise DatasetError(f"{path}: claims {described.num_rows} rows in {size} bytes; not to be trusted")
        _check_columns(path, schema, required, optional)
        table = pd.read_parquet(path)
        repeated = len(table.columns) != len(set(table.columns))
        if repeated or any(table[name].isna().any() for name in required if table[name].dtype.kind != "f"):
            raise DatasetError(f"{path}: missing values, or a column twice; run ls3dw verify")
    return table


def _is_text_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check_columns(
    path: Path, schema: pa.Schema, required: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType]
) -> None:
    import pyarrow as pa

    for name, kind in {**optional, **required}.items():
        if name not in schema.names:
            if name in required:
                raise DatasetError(f"{path}: no column {name!r}; an older ls3dw wrote it, or it is damaged")
            continue
        found = schema.field(name).type
        # Any width will do: pandas writes 64 bits.
        families = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, _is_text_type)
        if not any(of(found) and of(kind) for of in families):
            raise DatasetError(f"{path}: column {name!r} is {found}; expected {kind}; run ls3dw verify")
