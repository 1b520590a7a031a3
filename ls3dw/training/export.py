"""Export of trained networks: float16 weights, contract and model card."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from ls3dw.core.files import dump_json, write_atomic
from ls3dw.models.weights.contract import Contract, Kind
from ls3dw.models.weights.zoo import parameters, read_contract, save
from ls3dw.training.networks import TrainedNetwork, contract_of, scale_depth
from ls3dw.training.objective.losses import DEPTH_UNIT
from ls3dw.training.options import TrainOptions, config_hash, recorded, render_options
from ls3dw.training.validation.validate import Figures

LICENCE = "MIT"

_CONVENTIONS = {"300w": "300w", "menpo": "menpo", "300wlp": "300w-lp"}
"""Whose points the streams of files have."""


def export(
    networks: Mapping[str, TrainedNetwork],
    folder: Path,
    options: TrainOptions,
    steps: int,
    results: Mapping[str, Figures],
) -> dict[str, Contract]:
    """Write `<network>.safetensors`, `.json` and `.md` for each network; return their contracts."""
    contracts = {}
    for name, trained in networks.items():
        figures = _figures_of(name, results)
        contract = contract_of(
            name,
            trained.options,
            convention=_convention(options, trained.kind),
            licence=LICENCE if _only_heads(options) else "weights: as the terms of the training data allow",
            trained_on=_data(options),
            origin=f"ls3dw train, pipeline {options.name}, seed {options.seed}, {steps} steps of {options.batch}",
            figures=figures,
        )
        network = contract.build()
        network.load_state_dict(copy.deepcopy(trained.network.state_dict()))
        scale_depth(network, DEPTH_UNIT)
        contracts[name] = save(network, folder / f"{name}.safetensors", contract)
        card = model_card(contracts[name], options, steps, parameters(network))
        write_atomic(folder / f"{name}.md", card.encode())
    return contracts


def _only_heads(options: TrainOptions) -> bool:
    """Whether the weights come from rendered heads only, directly and through the weights they started from."""
    own = all(stream.stream == "heads" and not stream.render.get("backgrounds") for stream in options.data)
    before = {network.init for network in options.networks.values()} - {"random"}
    if options.guidance.model is not None:
        before.add(options.guidance.model)
    return own and all(read_contract(name).licence.startswith(LICENCE) for name in sorted(before))


def _convention(options: TrainOptions, kind: Kind) -> str:
    """Name whose points a network has learnt to give: those of its data, where all of it has the same."""
    names = {_CONVENTIONS.get(stream.stream, "unknown") for stream in options.data if stream.stream != "heads"}
    for stream in options.data:
        if stream.stream == "heads":
            render = render_options(stream.render)
            names.add(render.convention_2d if kind == "2d" else render.convention_3d)
    return names.pop() if len(names) == 1 else "unknown"


def _data(options: TrainOptions) -> str:
    total = sum(stream.share for stream in options.data)
    names = {"heads": "heads rendered by ls3dw", "dataset": "a data set built by ls3dw"}
    return ", ".join(f"{names.get(s.stream, s.stream)} ({100 * s.share / total:.0f} %)" for s in options.data)


def _figures_of(name: str, results: Mapping[str, Figures]) -> dict[str, Figures]:
    """Select the figures of one network, by set and guidance."""
    found = {}
    for key, figures in results.items():
        of, network, *guidance = key.split("/")
        if network == name:
            found["/".join((of, *guidance))] = {what: round(value, 5) for what, value in figures.items()}
    return found


def model_card(contract: Contract, options: TrainOptions, steps: int, size: int) -> str:
    """Describe weights in Markdown: data, recipe, seeds, measured figures, limits, licence."""
    rows = [
        f"| {of} | {what} | {value:.0f} |" if what == "faces" else f"| {of} | {what} | {100 * value:.2f} % |"
        for of, figures in contract.figures.items()
        for what, value in figures.items()
    ]
    recipe = dump_json(recorded(options)).decode()
    return f"""# {contract.name}

{_PURPOSE[contract.kind]} {size / 1e6:.2f} M parameters, float16 safetensors, SHA-256 `{contract.sha256}`.

- **Network**: `{dict(contract.network)}`
- **Data**: {contract.trained_on}
- **Training**: {steps} steps of {options.batch} faces, pipeline `{options.name}`, seed {options.seed},
  configuration `{config_hash(options)[:12]}`
- **Licence**: {contract.licence}

## Measured figures

NME is the mean distance over sqrt(width * height) of the true points' box; a failure lies above 7 %; AUC up to 7 %;
`mae` is that of z over the same size; ranges are |yaw| in degrees. `off`: guided by points 3 % off; `chain`: guided by
the 2D network of the run, or by the one that `guidance` names.

| faces | figure | value |
| --- | --- | --- |
{chr(10).join(rows) or "| none | not validated | |"}

## Limits

One face a crop, placed by the published rule around a box of the 68 points; other boxes cost accuracy. Small sets of
real faces say little about all people, cameras and light; where no figure stands above, nothing was measured.
{_FROM_HEADS if "rendered" in contract.trained_on else ""}
## Recipe

```json
{recipe}```
"""


_PURPOSE = {
    "2d": "68 landmarks on the visible contour, from a face crop.",
    "3d": "The projections of 68 landmarks in 3D, from a face crop.",
    "2d-to-3d": "The projections of 68 landmarks in 3D, from a face crop and its 68 landmarks in 2D.",
    "depth": "Depth of 68 landmarks in 3D, from a face crop and their projections.",
}
_FROM_HEADS = """
Rendered heads are no photographs: skin, hair and light vary less than real ones do, and the points follow one
definition on one head model, which annotators' habits differ from, most along the jaw.
"""
