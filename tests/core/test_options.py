"""Plain values become dataclasses, and every fault of them is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from ls3dw.core.options import parse_options, read_yaml
from ls3dw.errors import ConfigurationError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    size: tuple[int, int] = (1, 1)

    def faults(self) -> Iterator[str]:
        if self.rate < 0:
            yield "rate cannot be negative"


@dataclass(frozen=True)
class Outer:
    name: str
    mode: Literal["fast", "no"] = "fast"
    folder: Path | None = None
    words: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    each: Mapping[str, Inner] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    checked: int = 1

    def __post_init__(self) -> None:
        if self.checked < 1:
            raise ConfigurationError(f"checked {self.checked}: expected at least 1")


def test_values_become_what_the_types_say() -> None:
    values = {
        "name": 3,
        "folder": "a/b",
        "words": "one, two",
        "inner": {"rate": 1, "size": [2, 3]},
        "each": {"a": {"rate": 2.0}},
        "more": {"anything": [1]},
    }
    assert parse_options(Outer, values) == Outer(
        "3",
        folder=Path("a/b"),
        words=("one", "two"),
        inner=Inner(1.0, (2, 3)),
        each={"a": Inner(2.0)},
        more={"anything": [1]},
    )


def test_dashes_and_words_of_yaml() -> None:
    assert parse_options(Outer, {"name": "x", "mode": "no"}).mode == "no"
    with pytest.raises(ConfigurationError, match="mode False: expected one of fast, no"):
        parse_options(Outer, {"name": "x", "mode": False})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (3, "pipeline 3: expected options"),
        ({}, "name: missing"),
        ({"name": "x", "naem": 1}, "unknown option naem; expected some of name, mode"),
        ({"name": [1]}, r"name \[1\]: expected text"),
        ({"name": "x", "inner": {"rate": "1e-3"}}, r"inner.rate '1e-3': expected a number \(YAML wants 1.0e-4"),
        ({"name": "x", "inner": {"size": [1, "b"]}}, r"inner.size\[1\] 'b': expected a whole number"),
        ({"name": "x", "inner": {"size": [1]}}, "a list of 2"),
        ({"name": "x", "each": {"a": {"rate": -1}}}, "each.a: rate cannot be negative"),
        ({"name": "x", "checked": 0}, "checked 0: expected at least 1"),
        ({"name": "x", "checked": True, "words": 3}, "words 3: expected a list; checked True: expected a whole"),
    ],
)
def test_faults_are_named(values: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_options(Outer, values)


def test_a_prefix_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("naem: 1\n")
    with pytest.raises(ConfigurationError, match=r"a\.yaml: unknown option naem.*; name: missing"):
        parse_options(Outer, read_yaml(path), prefix=f"{path}: ")
    path.write_bytes(b"a: [")
    with pytest.raises(ConfigurationError, match="not a readable pipeline"):
        read_yaml(path)
