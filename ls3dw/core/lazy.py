"""Doors of packages that import what they offer on first use, so that `import ls3dw` and `ls3dw --help` stay quick."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def door(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package (PEP 562).

    homes: for each name the module below `package` that defines it; a name that ends its module's path is that module.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = importlib.import_module(f"{package}.{home}")
        return module if home.split(".")[-1] == name else getattr(module, name)

    return get, lambda: sorted(homes)
