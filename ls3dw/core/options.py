"""Options: frozen dataclasses, read from YAML or other plain values, with every fault reported at once."""

from __future__ import annotations

import contextlib
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ls3dw.core.formats.yaml_text import parse_yaml
from ls3dw.errors import ConfigurationError, OptionError

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raises `ConfigurationError` if it cannot be read."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: not a readable pipeline ({error})") from error


def parse_options(kind: type[T], values: Any, where: str = "", prefix: str = "") -> T:
    """Build the dataclass `kind` from a mapping; raises one `ConfigurationError` that names every fault.

    Names may have '-' for '_', and a tuple of texts may be given as one text with commas. The dataclass may have a
    method `faults() -> Iterable[str]` that checks values of the right types, or raise `ConfigurationError` itself.
    where: name of the mapping; prefix: of the message.
    """
    faults: list[str] = []
    with contextlib.suppress(_Unusable):
        options: T = _dataclass(kind, values, where, faults)
        if not faults:
            return options
    raise ConfigurationError(prefix + "; ".join(faults))


class _Unusable(Exception):  # noqa: N818 - never leaves this module
    """Raised after a fault has been recorded."""


def _dataclass(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, Mapping):
        _refuse(where, value, "options, one a line, as 'name: value'", faults)
    values = {str(key).replace("-", "_"): entry for key, entry in value.items()}
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    before = len(faults)
    unknown = [_join(where, name) for name in values if name not in known]
    if unknown:
        faults.append(f"unknown option {', '.join(unknown)}; expected some of {', '.join(known)}")
    faults += [
        f"{_join(where, name)}: missing"
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    found = {}
    for name in known:
        if name in values:
            with contextlib.suppress(_Unusable):
                found[name] = _value(hints[name], values[name], _join(where, name), faults)
    if len(faults) > before:
        raise _Unusable
    prefix = f"{where}: " if where else ""
    try:
        options = kind(**found)
    except ConfigurationError as error:
        faults.append(f"{prefix}{error}")
        raise _Unusable from error
    if hasattr(options, "faults"):
        faults += [prefix + fault for fault in options.faults()]
    return options


def _value(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _value(inner, value, where, faults)
    if origin is Literal:
        # Compared as text: YAML reads some words as numbers or booleans.
        if str(value) not in arguments:
            _refuse(where, value, f"one of {', '.join(arguments)}", faults)
        return str(value)
    if origin is tuple:
        return _sequence(arguments, value, where, faults)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            _refuse(where, value, "entries, one a line, as 'name: value'", faults)
        return {str(key): _value(arguments[1], entry, f"{where}.{key}", faults) for key, entry in value.items()}
    if is_dataclass(hint):
        return _dataclass(hint, value, where, faults)
    return _scalar(hint, value, where, faults)


def _sequence(arguments: tuple[Any, ...], value: Any, where: str, faults: list[str]) -> tuple[Any, ...]:
    repeated = arguments[-1] is Ellipsis
    if isinstance(value, str) and arguments == (str, ...):
        value = [entry.strip() for entry in value.split(",")]
    if not isinstance(value, list | tuple) or (not repeated and len(value) != len(arguments)):
        _refuse(where, value, "a list" if repeated else f"a list of {len(arguments)}", faults)
    hints = (arguments[0],) * len(value) if repeated else arguments
    before = len(faults)
    found = []
    for number, (hint, entry) in enumerate(zip(hints, value, strict=True)):
        with contextlib.suppress(_Unusable):
            found.append(_value(hint, entry, f"{where}[{number}]", faults))
    if len(faults) > before:
        raise _Unusable
    return tuple(found)


def _scalar(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    if hint is Any:
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is str and type(value) in (int, float, str):
        return str(value)
    if type(value) is not hint:
        _refuse(where, value, _WORDS[hint], faults)
    return value


def _refuse(where: str, value: Any, expected: str, faults: list[str]) -> Any:
    hint = " (YAML wants 1.0e-4, not 1e-4)" if isinstance(value, str) and re.fullmatch(r"\d+e-?\d+", value) else ""
    faults.append(f"{where or 'pipeline'} {value!r}: expected {expected}{hint}")
    raise _Unusable


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def keyword_options(kind: type[T], options: Mapping[str, Any]) -> T:
    """Make an options dataclass of keyword arguments; `OptionError` for unknown or unusable ones."""
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    if unknown := sorted(options.keys() - set(known)):
        raise OptionError(f"unknown option {', '.join(unknown)}; expected some of {', '.join(known)}")
    try:
        return kind(**options)
    except ConfigurationError as error:
        raise OptionError(str(error)) from error
