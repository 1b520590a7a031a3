"""What a version holds, in numbers: for `ls3dw build` and `ls3dw info`."""

from __future__ import annotations

from typing import Any

from ls3dw.dataset import Dataset
from ls3dw.sheet import NAME


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
        "gallery": str(dataset.store.gallery(dataset.version, NAME) / "index.html"),
    }


def render_summary(summary: dict[str, Any]) -> str:
    """Return the summary as text."""
    lines = [f"{'source':<10} {'read':>8} {'written':>8} {'dropped':>8}  {'mean NME':>8}"]
    for name, counts in summary["sources"].items():
        dropped = sum(counts["dropped"].values())
        nme = "-" if counts["mean_nme"] is None else f"{100 * counts['mean_nme']:.2f} %"
        lines.append(f"{name:<10} {counts['read']:>8} {counts['written']:>8} {dropped:>8}  {nme:>8}")
        lines += [f"{'':<10} {number:>26}  {reason}" for reason, number in counts["dropped"].items()]
    lines += [
        "",
        f"faces      {summary['faces']}, version {summary['version']} of {', '.join(summary['versions'])}",
        f"networks   {', '.join(model['name'] for model in summary['models'].values() if model)}",
        f"data set   {summary['dataset']}",
        f"gallery    {summary['gallery']}",
    ]
    return "\n".join(lines)
