"""What `ls3dw models list` and `info` say: bundled, imported and published weights in one table."""

from __future__ import annotations

from typing import Any

from ls3dw.models.weights.cache import Published, imported_names, published
from ls3dw.models.weights.zoo import BUNDLED, load, parameters, read_contract, weights_path


def catalogue() -> list[dict[str, Any]]:
    """List all weights that have a name. `status`: bundled, imported, fetched but not imported, or published."""
    own = [_held(name, "bundled") for name in BUNDLED] + [_held(name, "imported") for name in imported_names()]
    taken = {entry["name"] for entry in own}
    return own + [_elsewhere(item) for item in published().values() if item.name not in taken]


def describe(spec: str) -> dict[str, Any]:
    """Check the weights of a name or file and say what they are; of published ones not fetched, what is known."""
    if spec in published() and spec not in imported_names():
        return _elsewhere(published()[spec])
    model = load(spec)
    return model.contract.to_dict() | {"parameters": parameters(model.network), "file": str(weights_path(spec))}


def _held(name: str, status: str) -> dict[str, Any]:
    path = weights_path(name)
    return read_contract(name).to_dict() | {"status": status, "bytes": path.stat().st_size, "file": str(path)}


def _elsewhere(item: Published) -> dict[str, Any]:
    known = {
        "name": item.name,
        "title": item.title,
        "kind": item.kind,
        "network": dict(item.network),
        "pooling": item.pooling,
        "format": item.format,
        "file": item.file,
        "sha256": item.sha256,
        "urls": list(item.urls),
        "licence": item.licence,
        "homepage": item.homepage,
        "status": "fetched" if item.download.is_file() else "published",
    }
    return {key: value for key, value in known.items() if value is not None}
