"""Imports go one way, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ls3dw

PACKAGE = Path(ls3dw.__file__).parent

ROOMS = ("core", "sources", "models", "synth", "dataset", "evaluation", "review", "building", "training", "cli")
"""A module imports from its own room and from those before it; `errors` is everyone's."""

LONE = {"errors": 0.0, "api": len(ROOMS) - 1.5, "__main__": len(ROOMS) + 0.0}
"""Modules that stand in no room, and after how many rooms they come."""

LARGEST = 24
"""Modules in one folder."""

HOMES = {
    "torch": {"models", "synth", "training", "building", "dataset.subsets.sampler"},
    "safetensors": {"models.weights", "training"},
    "openvino": {"models.inference"},
    "h5py": {"dataset.shards"},
    "click": {"cli"},
    "subprocess": {"core.parallel"},
    "pandas": {"dataset", "evaluation", "building.selection"},
    "pyarrow": {"dataset"},
    "yaml": {"core.formats.yaml_text"},
    "matplotlib": {"evaluation", "dataset.subsets.plot"},
    "triton": {"synth.raster", "models.kernels"},
    "anny": {"synth.authoring"},
    "pickle": {"core.parallel.shared"},
    "menpo": {"dataset.open"},
    "joblib": {"core.jobs"},
}
"""Where in the package a heavy or dangerous one may be imported; shared: only from our own processes."""

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """What a module imports, at its head or in a function; a name from a package counts as its module if it is one."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def inner_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name in MODULES} - {module}


def room(module: str) -> str:
    """The first component below the package."""
    return module.split(".")[1]


def test_imports_go_one_way() -> None:
    order = {name: number for number, name in enumerate(ROOMS)} | LONE
    modules = [module for module in MODULES if module != "ls3dw"]
    assert {room(module) for module in modules} == set(order), "the list has every room and no other"
    against = [
        (module, name)
        for module in modules
        for name in inner_imports(module)
        if name != "ls3dw" and order[room(name)] > order[room(module)]
    ]
    assert against == []


def test_rooms_have_a_door_and_are_not_too_full() -> None:
    folders = {path.parent for path in MODULES.values()}
    for folder in folders:
        assert (folder / "__init__.py").is_file(), folder
        assert len(list(folder.glob("*.py"))) <= LARGEST + 1, folder
    assert len(list(PACKAGE.glob("*.py"))) <= 4
    for name in ROOMS:
        door = importlib.import_module(f"ls3dw.{name}")
        assert door.__doc__
        assert door.__all__
        for offered in door.__all__:
            assert getattr(door, offered) is not None, (name, offered)


PAGE = (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """The cells of the table in ARCHITECTURE.md that has this first cell."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_the_rooms() -> None:
    rows = table("room")
    assert tuple(row[0].strip("`") for row in rows) == ROOMS
    for name, content in rows:
        for folder in re.findall(r"`(\w+)/`", content):
            assert (PACKAGE / name.strip("`") / folder).is_dir(), (name, folder)


@pytest.mark.parametrize("row", table("what"), ids=lambda row: row[0])
def test_the_page_tells_where_to_add(row: list[str]) -> None:
    _, places, line = row
    for place in re.findall(r"`([\w/]+\.\w+)`", places):
        path = next(path for path in (PACKAGE / place, PACKAGE.parent / place) if path.parent.is_dir())
        assert "NAME" in place or path.is_file(), place
    found = re.search(r"`(\w+)` in `([\w/]+\.py)`", line)
    assert found, line
    code = (PACKAGE / found[2]).read_text(encoding="utf-8")
    assert re.search(rf"^(def |class )?{found[1]}\b", code, re.M), line


def test_the_page_names_files_that_are_there() -> None:
    for place in re.findall(r"`?\b((?:\w+/)+\w+\.\w+)`?", PAGE):
        assert "NAME" in place or (PACKAGE / place).exists() or (PACKAGE.parent / place).exists(), place


def test_no_cycles() -> None:
    """The package's own __init__ imports nothing when it is loaded, so it stands in no cycle."""
    graph = {module: inner_imports(module) - {"ls3dw"} for module in MODULES if module != "ls3dw"}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_some_packages_stay_where_they_belong() -> None:
    strays = [
        (module, name)
        for module in MODULES
        for name in imports(module)
        if (homes := HOMES.get(name.split(".")[0])) is not None
        and not any(f"{module}.".startswith(f"ls3dw.{home}.") for home in homes)
    ]
    assert strays == []


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["ls3dw"], {"torch", "numpy", "pandas", "cv2", "h5py", "scipy", "PIL", "click"}),
        (
            ["ls3dw.building.prepare", "ls3dw.core.parallel.pool", "ls3dw.sources"],
            {"torch", "pandas", "h5py", "scipy", "pyarrow", "click"},
        ),
        (["ls3dw.core.formats.t7"], {"torch", "pandas", "cv2", "h5py", "scipy", "PIL", "click"}),
        (["ls3dw.dataset.open"], {"torch", "scipy", "click"}),
    ],
)
def test_what_is_loaded_with_it(modules: list[str], absent: set[str]) -> None:
    """The package, what a decoding process needs, and reading a data set."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not absent & set(loaded.split())


@pytest.mark.parametrize("module", MODULES)
def test_each_module(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < 400
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            assert not (broad and all(isinstance(line, ast.Pass) for line in node.body)), "an error is swallowed"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("torch.load", "eval", "exec", "yaml.load")
    assert not {"dill", "cloudpickle", "marshal", "shelve"} & {name.split(".")[0] for name in imports(module)}
