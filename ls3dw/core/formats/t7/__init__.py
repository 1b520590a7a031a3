"""Torch7 files (`.t7`), read as plain data and written; nothing in a file is ever run."""

from ls3dw.core.formats.t7.reader import load, load_all, loads
from ls3dw.core.formats.t7.values import Key, Layout, T7Function, T7Object, as_list
from ls3dw.core.formats.t7.writer import dumps, save

__all__ = [
    "Key",
    "Layout",
    "T7Function",
    "T7Object",
    "as_list",
    "dumps",
    "load",
    "load_all",
    "loads",
    "save",
]
