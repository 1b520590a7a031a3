"""`ls3dw models`."""

from __future__ import annotations

import json

import click


@click.group()
def models() -> None:
    """The networks: bundled ones by name, others by file."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the bundled networks."""
    from ls3dw.models.zoo import BUNDLED, read_contract, weights_path

    if as_json:
        click.echo(json.dumps([read_contract(name).to_dict() for name in BUNDLED], indent=1))
        return
    for name, text in BUNDLED.items():
        size = weights_path(name).stat().st_size
        click.echo(f"{name:<20} {read_contract(name).kind:<9} {size / 1e6:5.1f} MB  {text}")


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(model: str, as_json: bool) -> None:
    """Check MODEL (a name or a .safetensors file) and say what it is: kind, network, data, licence, SHA-256."""
    from ls3dw.models.zoo import load, parameters

    loaded = load(model)
    facts = loaded.contract.to_dict() | {"parameters": parameters(loaded.network)}
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        click.echo(f"{key:<14} {json.dumps(value) if isinstance(value, dict) else value}")
