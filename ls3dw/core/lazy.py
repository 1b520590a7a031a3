"""Lazy package imports, which keep `import ls3dw` and `ls3dw --help` fast."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def door(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package (PEP 562).

    homes: name -> module below `package` that defines it, or that is the name itself.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = importlib.import_module(f"{package}.{home}")
        return module if home.split(".")[-1] == name else getattr(module, name)

    return get, lambda: sorted(homes)
