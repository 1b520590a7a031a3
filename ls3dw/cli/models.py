"""`ls3dw models`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ls3dw.cli.options import json_option, print_facts

if TYPE_CHECKING:
    from ls3dw.models.networks.fan import Pooling
    from ls3dw.models.weights.contract import Kind
    from ls3dw.models.weights.fetch import Report
    from ls3dw.models.weights.importing import Imported

KINDS = ("2d", "3d", "2d-to-3d", "depth")


@click.group()
def models() -> None:
    """The networks: bundled, published and your own."""


@models.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the bundled networks, the imported ones, and the published ones that can be fetched."""
    from ls3dw.models.weights.zoo import catalogue

    entries = catalogue()
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    for entry in entries:
        size = f"{entry['bytes'] / 1e6:6.1f} MB" if "bytes" in entry else ""
        about = entry.get("title") or _network(entry["network"])
        click.echo(f"{entry['name']:<20} {entry['kind']:<9} {entry['status']:<10} {size:<10} {about}".rstrip())


@models.command()
@click.argument("model")
@json_option
def info(model: str, as_json: bool) -> None:
    """Check MODEL (a name or a file of weights) and say what it is: kind, network, data, licence, SHA-256."""
    from ls3dw.models.weights.zoo import describe

    print_facts(describe(model), as_json)


@models.command()
@click.argument("name")
@click.option(
    "--mirror", "mirrors", multiple=True, metavar="URL", help="Try this folder first (repeatable; file:// too)."
)
@click.option("--offline", is_flag=True, help="Never touch the network: only what is fetched already, and file://.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0, min_open=True), metavar="S")
@json_option
def fetch(name: str, mirrors: tuple[str, ...], offline: bool, timeout: float, as_json: bool) -> None:
    """Download the published weights NAME, check them, and import them under that name.

    What came is kept when it breaks off: the same command goes on from there. The cache folder is $LS3DW_HOME, or
    ~/.cache/ls3dw.
    """
    from ls3dw.models.weights.cache import find
    from ls3dw.models.weights.fetch import FetchOptions
    from ls3dw.models.weights.fetch import fetch as download
    from ls3dw.models.weights.importing import install

    item = find(name)
    with _progress(item.file) as report:
        download(item, FetchOptions(mirrors, offline, timeout), report)
    _tell(install(item), as_json)


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), help="What the network predicts. [needed, but for published files]")
@click.option("--name", metavar="NAME", help="What to call it. [default: after the file]")
@click.option("--pooling", type=click.Choice(["avg", "max"]), help="Of a FAN. [default: as in the file, else avg]")
@click.option("--half", is_flag=True, help="Store float16 instead of the file's precision.")
@click.option("--replace", is_flag=True, help="Replace other weights of the same name.")
@json_option
def import_(
    file: Path, kind: str | None, name: str | None, pooling: str | None, half: bool, replace: bool, as_json: bool
) -> None:
    """Convert the weights in FILE and keep them under a name that --model-2d, --model-3d and --model-depth take.

    FILE: a PyTorch state dict (.pth, .pth.tar), a TorchScript archive, .safetensors, or a Torch7 .t7 (also in .tar.gz).
    Every shape is checked, and nothing in the file is run.
    """
    from ls3dw.models.weights.importing import ImportOptions, import_weights

    options = ImportOptions(cast("Kind | None", kind), name, cast("Pooling | None", pooling), half, replace)
    _tell(import_weights(file, options), as_json)


def _tell(made: Imported, as_json: bool) -> None:
    """Report what was imported."""
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=1))
        return
    contract = made.contract
    facts = {
        "name": contract.name,
        "kind": contract.kind,
        "network": _network(contract.network),
        "parameters": f"{made.parameters:,}",
        "from": f"{contract.source['file']} ({made.format}), SHA-256 {contract.source['sha256']}",
        "to": f"{made.path}, SHA-256 {contract.sha256}",
    }
    print_facts(facts, as_json)


def _network(network: Mapping[str, Any]) -> str:
    """Say in words what a network is."""
    arguments = ", ".join(
        f"{key} {f'({_network(value)})' if isinstance(value, Mapping) else value}"
        for key, value in network.items()
        if key != "class"
    )
    return f"{network['class']}: {arguments}" if arguments else str(network["class"])


@contextmanager
def _progress(label: str) -> Iterator[Report]:
    """Show a bar on stderr where that is a terminal."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def report(done: int, total: int | None) -> None:
            bar.length = total or max(done, 1)
            bar.update(done - bar.pos)

        yield report
