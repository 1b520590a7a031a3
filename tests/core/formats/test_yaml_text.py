"""YAML is read within limits."""

from __future__ import annotations

import pytest

from ls3dw.core.formats.yaml_text import MAX_TEXT, parse_yaml


def test_plain_values_and_a_few_anchors() -> None:
    assert parse_yaml("a: [1, 2.5, x]\nb: &common {c: true}\nd: {<<: *common, e: null}\n") == {
        "a": [1, 2.5, "x"],
        "b": {"c": True},
        "d": {"c": True, "e": None},
    }
    assert parse_yaml("") is None


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(12),
        "a: &a [*a]",
        "[" * 50_000,
        "x" * (MAX_TEXT + 1),
        "a: [",
        "2026-02-31",
        "? {a: 1}\n: 2",
        "!!int x",
        "a\n---\nb",
    ],
)
def test_what_is_too_large_or_damaged(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)
