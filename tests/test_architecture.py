"""Imports go one way, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ls3dw

PACKAGE = Path(ls3dw.__file__).parent

LAYERS = (
    ("errors", "markup", "resources", "times"),
    ("sample", "geometry", "annotations"),
    (
        "files",
        "memory",
        "decode",
        "pictures",
        "metrics",
        "normalisers",
        "pose",
        "pose_bins",
        "shapes",
        "phash",
        "transport",
        "processes",
        "execute",
        "serve",
        "consumer",
        "t7",
    ),
    ("sources", "models", "prepare", "ahead"),
    ("shards", "store", "synth", "face_batch"),
    ("annotator", "config", "decisions", "index", "plan", "batching", "lanes", "write", "dataset", "draw", "published"),
    ("training",),
    ("evaluation", "card", "sheet", "summary", "verify", "trace", "export"),
    ("finish",),
    ("build", "subsets"),
    ("versions", "bench"),
    ("gallery", "audit"),
    ("cli",),
    ("__main__",),
)
"""A module may import from its own layer and from those before it."""

HOMES = {
    "torch": {"models", "annotator", "synth", "training", "subsets", "bench"},
    "safetensors": {"models", "training"},
    "openvino": {"models"},
    "h5py": {"shards"},
    "click": {"cli"},
    "subprocess": {"processes", "execute", "serve"},
    "pandas": {"index", "dataset", "card", "evaluation", "subsets", "versions"},
    "pyarrow": {"index", "subsets"},
    "yaml": {"config", "training"},
    "matplotlib": {"evaluation", "subsets", "versions"},
    "triton": {"synth", "models"},
    "anny": {"synth"},
    "pickle": {"transport"},
}
"""Which parts of the package may import a heavy or dangerous one, at any place; transport: from our own processes."""

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


def part(module: str) -> str:
    """The first component below the package, which has a layer."""
    return module.split(".")[1]


def test_imports_go_one_way() -> None:
    depth = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    modules = [module for module in MODULES if module != "ls3dw"]
    assert {part(module) for module in modules} == set(depth), "the table has every module and no other"
    against = [
        (module, name)
        for module in modules
        for name in inner_imports(module)
        if name != "ls3dw" and depth[part(name)] > depth[part(module)]
    ]
    assert against == []


def test_no_cycles() -> None:
    """The package's own __init__ imports nothing when it is loaded, so it stands in no cycle."""
    graph = {module: inner_imports(module) - {"ls3dw"} for module in MODULES if module != "ls3dw"}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_some_packages_stay_where_they_belong() -> None:
    strays = [
        (module, name)
        for module in MODULES
        for name in imports(module)
        if part(module + ".") not in HOMES.get(name.split(".")[0], {part(module + ".")})
    ]
    assert strays == []


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["ls3dw"], {"torch", "numpy", "pandas", "cv2", "h5py", "scipy", "PIL", "click"}),
        (["ls3dw.prepare", "ls3dw.execute", "ls3dw.sources"], {"torch", "pandas", "h5py", "scipy", "pyarrow", "click"}),
        (["ls3dw.t7"], {"torch", "pandas", "cv2", "h5py", "scipy", "PIL", "click"}),
        (["ls3dw.dataset"], {"torch", "scipy", "click"}),
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
