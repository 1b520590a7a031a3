"""Time a gallery of many faces: how long it takes to write, how large it is, and how soon its first page is there.

The faces are those of a data set (`ls3dw build`), repeated under other ids in a data set of their own.

    python benchmarks/gallery.py ls3dw-data --faces 5000
    python benchmarks/gallery.py ls3dw-data --faces 5000 --chromium /usr/bin/chromium   # needs playwright
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ls3dw.building.finish import finish_version
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, FACE_COLUMNS, Column, Shard, encode_shard
from ls3dw.dataset.store import FileRecord, ShardRecord, Store, claim_version
from ls3dw.review.gallery.choose import GalleryOptions
from ls3dw.review.gallery.writer import write_gallery

SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

TILES = 60
"""Of a page."""

DECODED = """Promise.all([...document.querySelectorAll('#grid image')].map((tile) => {
  const image = new Image(); image.src = tile.href.baseVal; return image.decode(); }))"""


def repeat(dataset: Dataset, root: Path, faces: int) -> Dataset:
    """Write a data set with at least so many faces: every shard several times, its videos and ids renamed."""
    root.mkdir(parents=True)
    store, configuration = Store(root), dataset.manifest["configuration"]
    claim_version(store, "v1", configuration)
    copies = -(-faces // len(dataset))
    for record in dataset.store.markers(dataset.version):
        for copy in range(copies if record.written else 0):
            _copy_shard(dataset, store, record, copy)
    finish_version(store, "v1", configuration)
    return open_dataset(root)


def _copy_shard(dataset: Dataset, store: Store, record: ShardRecord, copy: int) -> None:
    own = replace(record, part=f"{record.part}-copy{copy}")
    names = record.source, record.name
    files = (
        _renamed(dataset.store.faces(*names), store, store.faces(own.source, own.name), FACE_COLUMNS, copy),
        _renamed(
            dataset.store.annotations(dataset.version, *names),
            store,
            store.annotations("v1", own.source, own.name),
            ANNOTATION_COLUMNS,
            copy,
        ),
    )
    store.write_marker("v1", replace(own, files=files))


def _renamed(old: Path, store: Store, new: Path, columns: tuple[Column, ...], copy: int) -> FileRecord:
    with Shard(old) as shard:
        rows = {column.name: shard.column(column.name) for column in columns}
        others = {"pictures": shard.column("pictures")} if columns is FACE_COLUMNS else {}
        attributes = shard.attributes
    for name in {"id", "media"} & rows.keys():
        rows[name] = np.array([f"{value}-copy{copy}" for value in rows[name]], dtype=object)
    return store.write(new, encode_shard(columns, rows, others, attributes))


def measure_page(page: Path, chromium: str, times: int = 5) -> dict[str, float]:
    """Open the page several times; return medians in milliseconds."""
    from playwright.sync_api import Page, sync_playwright

    def ready(tab: Page) -> None:
        """Wait until all tiles of the page have their points."""
        tab.locator("#grid path.points").nth(3 * TILES - 1).wait_for(state="attached")

    found: dict[str, list[float]] = {
        "first page, with points": [],
        "and its pictures": [],
        "next page": [],
        "sorted": [],
    }
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="commit")
            ready(tab)
            found["first page, with points"].append(time.perf_counter() - start)
            tab.evaluate(DECODED)
            found["and its pictures"].append(time.perf_counter() - start)
            for name, act in (("next page", "PageDown"), ("sorted", "")):
                start = time.perf_counter()
                if act:
                    tab.keyboard.press(act)
                else:
                    tab.select_option("#sort", "yaw")
                ready(tab)
                tab.evaluate(DECODED)
                found[name].append(time.perf_counter() - start)
            tab.close()
        browser.close()
    return {name: 1000 * float(np.median(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--faces", type=int, default=5000)
    parser.add_argument("--chromium", help="measure the page too, in this browser")
    options: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = repeat(open_dataset(options.dataset), Path(folder) / "data", options.faces)
        start = time.perf_counter()
        written = write_gallery(large, GalleryOptions("confidence", limit=options.faces))
        seconds = time.perf_counter() - start
        files = [path for path in written.page.parent.rglob("*") if path.is_file()]
        full = sum(path.stat().st_size for path in files if path.parent.name == "full")
        print(f"{written.faces} faces written in {seconds:.1f} s: {len(files)} files, {written.size / 1e6:.1f} MB,")
        print(f"of which {full / 1e6:.1f} MB are the pictures at full size (left out by --no-full)")
        if options.chromium:
            for name, value in measure_page(written.page, options.chromium).items():
                print(f"{name:<24} {value:6.0f} ms")


if __name__ == "__main__":
    main()
