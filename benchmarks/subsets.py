"""Draws and splits a made-up index as large as LS3D-W, and balances real shapes by pose.

    python benchmarks/subsets.py index                    230,000 rows: time, memory, which plants were found
    python benchmarks/subsets.py shapes merl_rav.npz      PDB on `landmarks` (N,68,2): histogram before and after
    python benchmarks/subsets.py poses aflw2000.npz       which faces change bin by published and by our pose
    python benchmarks/subsets.py boxes aflw2000.npz --pictures AFLW2000    hashes of one face in boxes of two labellings

The index has the shape of the real sources: 114 videos of about 1,900 frames whose pose and hash wander, 9,000 faces of
Menpo, 2,000 of AFLW2000-3D, 600 of 300-W; pictures that two sources share and videos that leak are planted in it.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ls3dw.core.geometry import tight_box
from ls3dw.core.metrics import box_size
from ls3dw.core.phash import face_hash
from ls3dw.core.pose import head_pose_fit
from ls3dw.core.sample import Sample
from ls3dw.dataset.subsets.balanced import BalancedDraw, BalancedOptions, draw_balanced
from ls3dw.dataset.subsets.leaks import find_leaks
from ls3dw.dataset.subsets.plot import draw_histogram
from ls3dw.dataset.subsets.pose_balanced import PoseBalance, balance_by_pose
from ls3dw.dataset.subsets.split import SplitOptions, split
from ls3dw.sources import open_source

VIDEOS = 114
FRAMES = 1917
PLANTED = 400
"""Faces of Menpo whose picture AFLW2000-3D has too, a few bits apart."""

PROFILES = 2290
"""Faces of Menpo that are seen from the side."""

LEAKED_VIDEOS = 5
"""Videos whose frames a second one repeats, a few bits apart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("index", "shapes", "poses", "boxes"))
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--plot", type=Path, help="Where to write the histogram of `shapes`.")
    parser.add_argument("--pictures", type=Path, help="Folder of AFLW2000-3D, for `boxes`.")
    options = parser.parse_args()
    if options.what == "boxes" and not options.pictures:
        parser.error("boxes: expected --pictures")
    if options.what != "index" and not options.file:
        parser.error(f"{options.what}: expected an .npz file")
    if options.what == "index":
        measure_index()
    elif options.what == "shapes":
        measure_shapes(options.file, options.plot)
    elif options.what == "boxes":
        measure_boxes(options.file, options.pictures)
    else:
        measure_poses(options.file)


def measure_index() -> None:
    index, planted = make_index(np.random.default_rng(0))
    print(f"{len(index)} rows, {planted_count(planted)} planted pairs")
    drawn = timed("balanced", lambda: draw_balanced(index, BalancedOptions()))
    print(
        {key: drawn.report[key] for key in ("drawn", "usable", "sources", "excluded", "gaps", "alike frames", "rounds")}
    )
    chosen = set(index["id"].iloc[drawn.rows])
    together = sum(one in chosen and other in chosen for one, other in planted)
    print(f"planted pairs of which both were drawn: {together}")
    print(f"least gap between frames drawn at the first gap: {least_gap(index, drawn)} frames")
    again = draw_balanced(index, BalancedOptions())
    print(f"drawn again the same: {np.array_equal(drawn.rows, again.rows)}")
    without = index[index["source"] != "menpo"].reset_index(drop=True)
    small = BalancedOptions(total=900)
    before = set(without["id"].iloc[draw_balanced(without, small).rows])
    after = set(index["id"].iloc[draw_balanced(index, small).rows])
    menpo = sum(face.startswith("menpo/") for face in after)
    print(f"{len(before)} faces drawn without menpo, {len(after)} with it: {len(after - before)} new, {menpo} menpo's")
    for official in (False, True):
        parted = timed("split", lambda: split(index, SplitOptions(official_300vw=official)))  # noqa: B023
        print(parted.report["faces"], parted.report["held out by source"], "groups", parted.report["groups"])
        ids, held = index["id"].to_numpy(), parted.held_out
        leaks = timed("check of its sides", lambda: find_leaks(list(ids[~held]), list(ids[held]), index))  # noqa: B023
        print(f"leaks between its sides: {len(leaks.found)}")
    check_plants(index, planted)


def check_plants(index: pd.DataFrame, planted: list[tuple[str, str]]) -> None:
    """Put one of each planted pair on each side, the rest at random: the check has to name them all."""
    dice = np.random.default_rng(1)
    first = {one for one, _ in planted} | set(index["id"][dice.random(len(index)) < 0.5])
    first -= {other for _, other in planted}
    second = set(index["id"]) - first
    leaks = timed("check of lists with plants", lambda: find_leaks(sorted(first), sorted(second), index))
    both = set.intersection(*({face[:9] for face in side if face.startswith("300vw/")} for side in (first, second)))
    videos = {leak.first.rsplit("/", 1)[0] for leak in leaks.found if leak.kind == "same video"}
    near = [(leak.first, leak.second) for leak in leaks.found if leak.kind == "near-duplicate"]
    stills = {frozenset(pair) for pair in near}
    films = {frozenset(face.rsplit("/", 1)[0] for face in pair) for pair in near}
    missed = [
        pair
        for pair in planted
        if frozenset(pair) not in stills and frozenset(face.rsplit("/", 1)[0] for face in pair) not in films
    ]
    print(
        f"{leaks.counts}; videos on both sides: {len(both)}, found: {len(videos)}; planted pairs missed: {len(missed)}"
    )


def planted_count(planted: list[tuple[str, str]]) -> dict[str, int]:
    return dict(Counter(one.split("/")[0] + "+" + other.split("/")[0] for one, other in planted))


def least_gap(index: pd.DataFrame, drawn: BalancedDraw) -> int:
    chosen = index.iloc[drawn.rows[drawn.gap == BalancedOptions().gap]]
    films = chosen[chosen["frame"] > 0].sort_values(["media", "frame"])
    return int(films.groupby("media")["frame"].diff().min())


def make_index(dice: np.random.Generator) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Make the index up, and return the pairs of ids that show one picture."""
    films = [_film(f"{number:03d}", dice) for number in range(1, VIDEOS + 1)]
    planted = []
    for number in range(LEAKED_VIDEOS):
        one, other = films[number], films[-1 - number]
        other["phash"] = _near(one["phash"].to_numpy(), dice, 4)
        planted += list(zip(one["id"], other["id"], strict=True))
    stills = {name: _stills(name, count, dice) for name, count in (("menpo", 8943), ("aflw2000", 2000), ("300w", 600))}
    menpo, aflw = stills["menpo"], stills["aflw2000"]
    twins = dice.choice(len(menpo), PLANTED, replace=False)
    originals = dice.choice(len(aflw), PLANTED, replace=False)
    menpo.loc[twins, "phash"] = _near(aflw["phash"].to_numpy()[originals], dice, 8)
    menpo.loc[twins, "yaw"] = aflw["yaw"].to_numpy()[originals]
    planted += list(zip(aflw["id"].to_numpy()[originals], menpo["id"].to_numpy()[twins], strict=True))
    return pd.concat([*films, *stills.values()], ignore_index=True), planted


def _film(name: str, dice: np.random.Generator) -> pd.DataFrame:
    """Make a video: yaw wanders around its own middle, a bit of the hash turns now and then."""
    yaw = dice.normal(0, 14) + np.cumsum(dice.normal(0, 1.2, FRAMES)) * 0.4
    flips = np.where(
        dice.random(FRAMES) < 0.3, np.uint64(1) << dice.integers(0, 64, FRAMES, dtype=np.uint64), np.uint64(0)
    )
    hashes = dice.integers(0, 1 << 64, dtype=np.uint64, endpoint=False) ^ np.bitwise_xor.accumulate(flips)
    frame = np.arange(1, FRAMES + 1)
    subset = "train" if int(name) <= 50 else "ABC"[int(name) % 3]
    ids = [f"300vw/{name}/{number:06d}" for number in frame]
    return _rows("300vw", subset, ids, [f"{name}/vid.avi"] * FRAMES, frame, np.clip(yaw, -89, 89), hashes, dice)


def _stills(source: str, count: int, dice: np.random.Generator) -> pd.DataFrame:
    spread = {"menpo": 22, "aflw2000": 40, "300w": 18}[source]
    ids = [f"{source}/face{number:05d}" for number in range(count)]
    hashes = dice.integers(0, 1 << 64, count, dtype=np.uint64, endpoint=False)
    yaw = np.clip(dice.normal(0, spread, count), -89, 89)
    if source == "menpo":
        yaw[:PROFILES] = dice.uniform(58, 89, PROFILES) * dice.choice([-1, 1], PROFILES)
    return _rows(source, "all", ids, [f"{name}.jpg" for name in ids], np.zeros(count, int), yaw, hashes, dice)


def _rows(
    source: str,
    subset: str,
    ids: list[str],
    media: list[str],
    frame: NDArray[Any],
    yaw: NDArray[Any],
    hashes: NDArray[np.uint64],
    dice: np.random.Generator,
) -> pd.DataFrame:
    count = len(ids)
    columns: dict[str, Any] = {"id": ids, "source": source, "subset": subset, "media": media, "frame": frame}
    columns |= {"shard": f"{subset}-0000", "row": np.arange(count), "yaw": yaw.astype(np.float32)}
    columns |= {"nme": dice.gamma(9, 0.0035, count).astype(np.float32), "broken": dice.random(count) < 0.01}
    columns |= {"pose_residual": dice.gamma(30, 0.0021, count).astype(np.float32), "phash": hashes}
    return pd.DataFrame(columns | dict.fromkeys(("x0", "y0", "x1", "y1"), np.float32(0)))


def _near(hashes: NDArray[np.uint64], dice: np.random.Generator, bits: int) -> NDArray[np.uint64]:
    """Turn up to so many bits of each hash."""
    for _ in range(bits):
        hashes = hashes ^ (np.uint64(1) << dice.integers(0, 64, len(hashes), dtype=np.uint64))
    return hashes


def measure_shapes(file: Path, plot: Path | None) -> None:
    with np.load(file) as arrays:
        solid = arrays.get("published_pt3d_68")
        shapes = arrays["landmarks"] if solid is None else solid[:, :2].transpose(0, 2, 1)
    ids = [str(number) for number in range(len(shapes))]
    balanced = timed("balanced by pose", lambda: balance_by_pose(ids, shapes, PoseBalance()))
    print(f"{len(shapes)} faces, {len(balanced.rows)} with all points")
    angles = head_pose_fit(shapes[balanced.rows]).angles
    yaw = np.abs(angles[:, 0])
    for component in range(3):
        projection = balance_by_pose(ids, shapes, PoseBalance(component=component)).projection
        turns = (np.corrcoef(projection, angle)[0, 1] for angle in angles.T)
        print(f"component {component}: correlation with yaw, pitch, roll", *(f"{turn:.2f}" for turn in turns))
    print("| bin | |projection| | faces | times | after | |yaw| |\n| --- | --- | --- | --- | --- | --- |")
    for number, (before, after) in enumerate(zip(balanced.counts, balanced.balanced_counts, strict=True)):
        low, high = balanced.edges[number : number + 2]
        times, turned = after / max(before, 1), yaw[balanced.bin == number]
        mean = f"{turned.mean():.1f}" if len(turned) else "-"
        print(f"| {number + 1} | {low:.1f} to {high:.1f} | {before} | {times:.0f} | {after:.0f} | {mean} |")
    if plot:
        plot.write_bytes(draw_histogram(balanced, f"{len(balanced.rows)} hand-labelled faces"))
    many = np.tile(shapes[balanced.rows], (-(-230_000 // len(balanced.rows)), 1, 1))[:230_000]
    timed("230,000 shapes", lambda: balance_by_pose([""] * len(many), many, PoseBalance()))


def measure_poses(file: Path) -> None:
    with np.load(file) as arrays:
        points = arrays["published_pt3d_68"].transpose(0, 2, 1)
        again, published, rows = arrays["reannotated_xy"].transpose(0, 2, 1), arrays["yaw_degrees"], arrays["row"]
    for name, shapes in (("published, with z", points), ("published", points[..., :2]), ("re-annotated", again)):
        pose = head_pose_fit(shapes)
        report_poses(name, published, pose.angles[:, 0], pose.residual, rows)


def report_poses(
    name: str, published: NDArray[Any], ours: NDArray[Any], residual: NDArray[Any], rows: NDArray[Any]
) -> None:
    """Say who changes bin, and what a balanced draw by either angle would have in common."""
    theirs, mine = np.abs(published), np.abs(ours)
    bins = np.digitize(theirs, (30, 60), right=True), np.digitize(mine, (30, 60), right=True)
    moved = bins[0] != bins[1]
    print(f"\n{name}: {moved.sum()} of {len(moved)} change bin; rows of the table: published, columns: ours")
    print(np.array([[int(((bins[0] == one) & (bins[1] == other)).sum()) for other in range(3)] for one in range(3)]))
    distance = np.minimum(np.abs(theirs - 30), np.abs(theirs - 60))[moved]
    print(
        f"their published |yaw| lies {np.median(distance):.1f} degrees from an edge in the median, {distance.max():.1f}"
    )
    histogram = np.bincount((theirs[moved] // 5).astype(int))
    print("at", {f"{5 * at}-{5 * at + 5}": int(count) for at, count in enumerate(histogram) if count})
    draws = []
    for angle in (published, ours):
        index = _index_of(rows, angle, residual)
        draws.append(draw_balanced(index, BalancedOptions(total=2999 // 3 * 3)))
    ids = [set(drawn.rows.tolist()) for drawn in draws]
    sizes = [drawn.report["per bin"] for drawn in draws]
    least = min(sizes) * 3
    print(f"faces a bin: {sizes[0]} by the published yaw, {sizes[1]} by ours; drawn by both: {len(ids[0] & ids[1])}")
    own = [dict(zip(drawn.rows.tolist(), drawn.bin, strict=True)) for drawn in draws]
    other = sum(own[0].get(row, name) != name for row, name in own[1].items())
    print(f"of the faces that both drew, in another bin: {other} (smaller draw: {least} faces)")


def measure_boxes(file: Path, pictures: Path) -> None:
    """Shake the boxes of real faces as two labellings of AFLW2000-3D differ, and compare the hashes."""
    with np.load(file) as arrays:
        first, second = (
            arrays["published_pt3d_68"][:, :2].transpose(0, 2, 1),
            arrays["reannotated_xy"].transpose(0, 2, 1),
        )
    # Both to 0-based pixels, of which the published points are one off.
    boxes = tight_box(first - 1).astype(np.float64), tight_box(second).astype(np.float64)
    shakes = (boxes[1] - boxes[0]) / box_size(boxes[0])[:, None]
    dice, here = np.random.default_rng(0), np.eye(2, 3)
    bits = []
    for sample in read_samples(pictures):
        box, picture = sample.box.astype(np.float64), sample.image()
        own = int(face_hash(picture, here, box))
        shaken = box + shakes[dice.choice(len(shakes), 150, replace=False)] * box_size(box[None])
        bits += [(own ^ int(face_hash(picture, here, each))).bit_count() for each in shaken]
    print(f"box sides differ by {100 * np.sqrt((shakes**2).mean()):.1f} % of the face, root mean square")
    for limit in (6, 8, 11):
        print(
            f"hashes within {limit} bits: {100 * (np.array(bits) <= limit).mean():.0f} %; median {np.median(bits):.0f}"
        )


def read_samples(pictures: Path) -> Iterator[Sample]:
    for media in open_source("aflw2000", pictures).list_media("all", 1000):
        for _, outcome in media.read(lambda number: False):
            assert isinstance(outcome, Sample), outcome
            yield outcome


def _index_of(rows: NDArray[Any], yaw: NDArray[Any], residual: NDArray[Any]) -> pd.DataFrame:
    """Make an index of AFLW2000-3D whose faces are all different."""
    dice = np.random.default_rng(0)
    ids = [f"aflw2000/row{row}" for row in rows]
    count = len(ids)
    frame = _rows(
        "aflw2000", "all", ids, ids, np.zeros(count, int), yaw, dice.integers(0, 1 << 64, count, np.uint64), dice
    )
    return frame.assign(nme=np.float32(0), broken=False, pose_residual=residual)


def timed(what: str, work: Any) -> Any:
    start, spent = time.perf_counter(), time.process_time()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    elapsed, busy = time.perf_counter() - start, time.process_time() - spent
    print(f"{what}: {elapsed:.2f} s, {busy:.2f} s of CPU, {peak:.0f} MB at most")
    return result


if __name__ == "__main__":
    main()
