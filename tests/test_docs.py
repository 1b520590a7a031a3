"""The guide stays short and its references stay true; `make docs` checks links between its pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDE = sorted(DOCS.glob("*.md"))

DIARY = re.compile(r"another day|(?:second|third|fourth|fifth|sixth) stage|scratch script|session before|benchmarks/")


def test_the_guide_is_short() -> None:
    """A word has a letter or a digit: lines of tables are none."""
    assert sum(len(re.findall(r"\S*\w\S*", page.read_text(encoding="utf-8"))) for page in GUIDE) <= 9000


@pytest.mark.parametrize("page", [*GUIDE, ROOT / "README.md", ROOT / "ARCHITECTURE.md"], ids=lambda page: page.stem)
def test_a_guide_is_no_diary(page: Path) -> None:
    found = DIARY.findall(page.read_text(encoding="utf-8"))
    assert found == []


def test_documents_named_in_the_code_are_there() -> None:
    for path in sorted((ROOT / "ls3dw").rglob("*.py")):
        for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), (path, name)


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_links_of_pages_outside_the_guide(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
