"""The data set card: contents, sources and making of a version, written from its index and manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ls3dw.core.metrics import FAILURE, auc
from ls3dw.core.resources import manifest as source_manifest
from ls3dw.dataset.records import seal_text
from ls3dw.dataset.store import Store
from ls3dw.sources import SOURCES

if TYPE_CHECKING:
    import pandas as pd

CARD: Final = "DATASET_CARD.md"
YAW_EDGES: Final = (0, 30, 60, 90)


def write_card(store: Store, index: pd.DataFrame, manifest: Mapping[str, Any]) -> None:
    """Write DATASET_CARD.md, with its SHA-256 at its end."""
    store.write(store.root / CARD, seal_text(render_card(index, manifest)))


def render_card(index: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Return the card as Markdown. index, manifest: of one version."""
    sections = (
        f"# Data set card: LS3D-W by ls3dw, version {manifest['version']}",
        "Faces with 68 landmarks in 2D and in 3D (iBUG mark-up), made with ls3dw"
        f' {manifest["ls3dw"]} as in "How far are we from solving the 2D & 3D Face Alignment problem?" (ICCV 2017).'
        " Pixels are 0-based, the centre of the top-left one is (0, 0); angles are in degrees; NME is a share of"
        " sqrt(width * height) of the box of the source's own points.",
        "## Content\n\n" + _content(index, manifest["counts"]),
        "## Head pose\n\n" + _yaw(index),
        "## Left out\n\n" + _drops(manifest["counts"]),
        "## How it was made\n\n" + _making(manifest["configuration"]),
        "## Sources, licences, citations\n\n" + _sources(manifest),
        f"## Limits\n\n- {MADE_BY[manifest['configuration'].get('annotations', 'network')]}\n{LIMITS}",
    )
    return "\n\n".join(sections) + "\n"


MADE_BY: Final = {
    "network": "The landmarks are predictions of networks, not hand annotations; `nme` compares them with the source's"
    " own points.",
    "published": "The landmarks are the sources' own points as published; no network ran, and what was not published"
    " (visible contour, depth, confidences) is NaN.",
}
"""By the option `annotations`."""

LIMITS: Final = """\
- The pictures belong to their sources, each under its own licence (above); most allow research only.
- Consecutive video frames are near-duplicates, and AFLW pictures can stand in both Menpo and AFLW2000-3D: split by
  video and by picture, not by row.
- Faces that the sources do not annotate are not in it, so it says nothing about how often faces are found."""


EMBEDDED: Final = """\
The sample that is embedded in ls3dw: rendered MakeHuman heads (CC0) with exact points, in the layouts of the four data
sets. No picture shows a person, and none is from those data sets; all may be used for anything."""


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _content(index: pd.DataFrame, counts: Mapping[str, Any]) -> str:
    head = ("source", "subset", "read", "written", "mean NME", "median NME", "AUC at 7 %", "NME above 7 %")
    rows: list[tuple[Any, ...]] = []
    for source, count in counts.items():
        own = index[index["source"] == source]
        rows.append((source, "all", count["read"], count["written"], *_errors(own)))
        if own["subset"].nunique() > 1:
            rows += [(source, subset, "", len(part), *_errors(part)) for subset, part in own.groupby("subset")]
    return _table(head, rows)


def _errors(part: pd.DataFrame) -> tuple[str, str, str, str]:
    errors = part["nme"].dropna().to_numpy()
    if not len(errors):
        return "-", "-", "-", "-"
    failures = int((errors > FAILURE).sum())
    return (
        f"{100 * errors.mean():.2f} %",
        f"{100 * float(part['nme'].median()):.2f} %",
        f"{auc(errors):.3f}",
        str(failures),
    )


def _yaw(index: pd.DataFrame) -> str:
    names = [*(f"{low}-{high}" for low, high in pairwise(YAW_EDGES)), f"above {YAW_EDGES[-1]}"]
    rows = []
    for source, part in index.groupby("source"):
        # Upper edges belong to their bin, as in LS3D-W Balanced.
        bins = np.searchsorted(YAW_EDGES[1:], part["yaw"].abs().to_numpy(), side="left")
        rows.append((source, *np.bincount(bins, minlength=len(names)).tolist()))
    return "Faces by |yaw| in degrees, estimated from the 3D landmarks.\n\n" + _table(("source", *names), rows)


def _drops(counts: Mapping[str, Any]) -> str:
    rows = [(source, reason, number) for source, count in counts.items() for reason, number in count["dropped"].items()]
    return _table(("source", "reason", "files or frames"), rows) if rows else "Nothing."


def _making(configuration: Mapping[str, Any]) -> str:
    models = [
        (role, model["name"], f"`{model['sha256'][:16]}`") if model else (role, "none", "")
        for role, model in configuration["models"].items()
    ]
    rest = [(key, json.dumps(value)) for key, value in configuration.items() if key != "models"]
    return _table(("network", "weights", "SHA-256"), models) + "\n\n" + _table(("option", "value"), rest)


def _sources(manifest: Mapping[str, Any]) -> str:
    if manifest["configuration"].get("data") == "embedded sample":
        return EMBEDDED
    return "\n\n".join(_source(name) for name in manifest["counts"] if name in SOURCES)


def _source(name: str) -> str:
    facts = source_manifest(name)
    return f"### {facts['title']} (`{name}`)\n\n{facts['licence']}\n\n```bibtex\n{facts['citation'].strip()}\n```"
