"""`ls3dw head`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ls3dw.cli.options import json_option, print_facts


@click.group()
def head() -> None:
    """The head that is rendered: its shapes, and where the 68 points lie on it."""


@head.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the heads drawn.")
@click.option("--heads", type=click.IntRange(min=2), default=2500, show_default=True, help="Heads drawn.")
@click.option("--directions", type=click.IntRange(min=1), default=100, show_default=True, help="Directions kept.")
@json_option
def build(out: Path, seed: int, heads: int, directions: int, as_json: bool) -> None:
    """Make a head file OUT (.npz) from the anny package: pip install "ls3dw[heads]".

    The first time takes two minutes more, while anny fills its cache.
    """
    from ls3dw.core.files import sha256, write_atomic
    from ls3dw.synth.authoring.build_head import build_head
    from ls3dw.synth.head.model import dump_arrays

    built = build_head(seed, heads, directions)
    data = dump_arrays(built.arrays)
    write_atomic(out, data)
    facts = {
        "file": str(out),
        "bytes": len(data),
        "sha256": sha256(data),
        "seed": seed,
        "heads": heads,
        "vertices": len(built.arrays["mean"]),
        "triangles": len(built.arrays["triangles"]),
        "directions": directions,
        "expressions": len(built.arrays["expressions"]),
        "shape changes": built.changes,
        "variance kept": round(built.explained, 5),
        "error on the face": round(built.error, 5),
    }
    print_facts(facts, as_json)


@head.command()
@click.argument("labels", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--held-out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Labels of other faces (.npz), on which the placement is measured.",
)
@click.option(
    "--people",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also fit people's mean head with the new placement, and write it to this file (.json).",
)
@click.option("--convention", metavar="NAME", help="Fit a convention to these labels, and add it to the placement.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of --convention: labels that the bundled placement was fitted to (.npz).",
)
@click.option("--solid", is_flag=True, help="Of --convention: the jaw's labels are places in 3D, not the contour.")
@json_option
def fit(
    labels: Path,
    out: Path,
    held_out: Path | None,
    people: Path | None,
    convention: str | None,
    reference: Path | None,
    solid: bool,
    as_json: bool,
) -> None:
    """Fit where the 68 points lie on the head to faces labelled by hand, and write the placement OUT (.json).

    LABELS is an .npz file with `landmarks` (N, 68, 2) in pixels, NaN where a point is not labelled, and if there are
    such points `externally_occluded` (N, 68): those that were guessed behind something. Faces in many poses, hundreds
    at least. With --held-out also the mean distance of points from labels is printed, in % of the face's size.

    \b
    ls3dw head fit 300w.npz placement.json --convention 300w --reference merl_rav.npz
    """
    if (convention is None) != (reference is None) or (convention is None and solid):
        raise click.UsageError("--convention NAME and --reference FILE go together, and --solid with them")
    if convention is not None and reference is not None:
        if held_out or people:
            raise click.UsageError("--convention takes neither --held-out nor --people")
        print_facts(_fit_convention(labels, out, convention, reference, solid), as_json)
        return
    from ls3dw.core.files import write_atomic
    from ls3dw.synth.authoring.fit_people import fit_people
    from ls3dw.synth.authoring.fit_placement import fit as fit_placement
    from ls3dw.synth.authoring.fit_placement import held_out_error, read_labels
    from ls3dw.synth.authoring.sliding import HeadShape
    from ls3dw.synth.head.model import load_head
    from ls3dw.synth.head.people import dump_people
    from ls3dw.synth.head.placement import dump_placement

    points, occluded = read_labels(labels)
    others = None if held_out is None else read_labels(held_out)
    head = load_head()
    shape = HeadShape.of(head)
    fitted_on = {"what": labels.name, "labelled": len(points)}
    placement = fit_placement(shape, points, occluded=occluded, fitted_on=fitted_on)
    write_atomic(out, dump_placement(placement))
    if people is not None:
        mean = fit_people(head, placement, points, occluded=occluded, fitted_on=fitted_on)
        write_atomic(people, dump_people(mean))
    errors = {} if others is None else held_out_error(shape, placement, *others)
    measured = {f"error {name}": error for name, error in errors.items()}
    print_facts({"file": str(out), **placement.fitted_on, **measured}, as_json)


def _fit_convention(labels: Path, out: Path, name: str, reference: Path, solid: bool) -> dict[str, Any]:
    from dataclasses import replace

    import numpy as np

    from ls3dw.core.files import write_atomic
    from ls3dw.synth.authoring.fit_convention import fit_convention
    from ls3dw.synth.authoring.fit_placement import read_labels
    from ls3dw.synth.head.model import load_head
    from ls3dw.synth.head.placement import dump_placement, load_placement

    tables = []
    for path in (labels, reference):
        points, hidden = read_labels(path)
        if hidden is not None:
            points = np.where(hidden[..., None], np.nan, points)
        tables.append(points)
    found = fit_convention(load_head(), *tables, solid=solid, fitted_on={"what": labels.name})
    placement = load_placement(out if out.exists() else None)
    write_atomic(out, dump_placement(replace(placement, conventions={**placement.conventions, name: found})))
    return {"file": str(out), "convention": name, **found.fitted_on}
