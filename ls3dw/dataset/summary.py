"""What a version holds, in numbers: for `ls3dw build` and `ls3dw info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ls3dw.dataset.open import Dataset
from ls3dw.dataset.store import CONTACT_SHEETS


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Count by source: read, written, dropped by reason, mean NME (None without points to compare with)."""
    sources = {}
    for name, counts in dataset.manifest["counts"].items():
        errors = dataset.index.loc[dataset.index["source"] == name, "nme"].dropna()
        sources[name] = {**counts, "mean_nme": float(errors.mean()) if len(errors) else None}
    return {
        "dataset": str(dataset.store.root),
        "version": dataset.version,
        "versions": list(dataset.versions),
        "faces": len(dataset),
        "sources": sources,
        "models": dataset.manifest["configuration"]["models"],
        "balanced_origins": dataset.manifest.get("balanced_origins", {}),
        "gallery": str(dataset.store.gallery(dataset.version, CONTACT_SHEETS) / "index.html"),
    }


def network_names(models: Mapping[str, Any]) -> str:
    """List the networks of a version for people."""
    return ", ".join(model["name"] for model in models.values() if model) or "none, the points as published"


def render_summary(summary: dict[str, Any]) -> str:
    """Return the summary as text."""
    lines = [f"{'source':<10} {'read':>8} {'written':>8} {'dropped':>8}  {'mean NME':>8}"]
    for name, counts in summary["sources"].items():
        dropped = sum(counts["dropped"].values())
        nme = "-" if counts["mean_nme"] is None else f"{100 * counts['mean_nme']:.2f} %"
        lines.append(f"{name:<10} {counts['read']:>8} {counts['written']:>8} {dropped:>8}  {nme:>8}")
        lines += [f"{'':<10} {number:>26}  {reason}" for reason, number in counts["dropped"].items()]
    traced = [f"{number} by {how}" for how, number in summary["balanced_origins"].items() if how != "none"]
    if summary["balanced_origins"]:
        unknown = summary["balanced_origins"].get("none", 0)
        lines += ["", f"balanced   origins known: {', '.join(traced) or 'none'}; unknown: {unknown}"]
    lines += [
        "",
        f"faces      {summary['faces']}, version {summary['version']} of {', '.join(summary['versions'])}",
        f"networks   {network_names(summary['models'])}",
        f"data set   {summary['dataset']}",
        f"gallery    {summary['gallery']}",
    ]
    return "\n".join(lines)
