"""Galleries in a real browser: opened from disk, used by keys alone, exported, and applied."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from gallery_data import Rows, rewrite

from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.verify import verify
from ls3dw.review.gallery.choose import GalleryOptions
from ls3dw.review.gallery.writer import write_gallery

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install ls3dw[dev]")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or its path in CHROMIUM"),
]

SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

Page = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[Path], Page]]:
    """Open pages from disk, in one profile; whatever a page reports, or asks for beyond its folder, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(10_000)
    complaints: list[str] = []

    def open_page(path: Path) -> Page:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        folder = path.parent.as_uri()
        page.on(
            "request", lambda asked: None if asked.url.startswith((folder, "blob:")) else complaints.append(asked.url)
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert complaints == []


@pytest.fixture
def data(sample_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sample_data, tmp_path / "data")


@pytest.fixture
def worst(data: Path) -> Path:
    return write_gallery(open_dataset(data), GalleryOptions("worst")).page


def marked(page: Page) -> str:
    """The id of the face that is marked."""
    return str(page.locator(".tile.current b").text_content())


def shown(page: Page) -> list[str]:
    return list(page.locator(".tile b").all_text_contents())


def badge(page: Page, face: str) -> str:
    tiles = "[...document.querySelectorAll('.tile')]"
    found = f"face => {tiles}.find((tile) => tile.querySelector('b').textContent === face).lastChild.textContent"
    return str(page.evaluate(found, face))


def export(page: Page, path: Path, who: str = "Ada") -> Path:
    page.fill("#who", who)
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.keyboard.press("e")
    assert download.value.suggested_filename == "decisions.json"
    download.value.save_as(path)
    return path


def test_keys_alone(visit: Callable[[Path], Page], worst: Path, data: Path) -> None:
    page = visit(worst)
    errors = open_dataset(data).index.dropna(subset="nme").sort_values("nme", ascending=False, kind="stable")
    order = errors["id"].tolist()
    assert shown(page) == order[:60]
    page.locator("#grid path.points").nth(3 * 60 - 1).wait_for(state="attached")
    page.keyboard.press("j")
    assert marked(page) == order[1]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    assert marked(page) == order[1]
    page.keyboard.press("ArrowDown")
    below = order.index(marked(page)) - 1
    assert below > 1
    left = page.locator(".tile").nth(1).bounding_box()["x"]
    assert page.locator(".tile.current").bounding_box()["x"] == left
    page.keyboard.press("Home")
    for key, verdict in (("a", "accept"), ("r", "reject"), ("w", "annotation wrong"), ("p", "prediction wrong")):
        face = marked(page)
        page.keyboard.press(key)
        assert badge(page, face) == verdict
        assert marked(page) != face, "a verdict moves on"
    assert page.locator("#status").text_content() == f"4 of {len(order)} judged"
    page.keyboard.press("u")
    assert marked(page) == order[3]
    assert badge(page, order[3]) == ""
    page.keyboard.press("PageDown")
    assert shown(page) == order[60:120]
    assert marked(page) == order[60]
    page.keyboard.press("End")
    assert marked(page) == order[-1]
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.className").split() == ["tile", "is-accept", "current"]


def test_layers(visit: Callable[[Path], Page], worst: Path) -> None:
    page = visit(worst)
    for key, layer in (("1", "annotation"), ("2", "flat"), ("3", "deep")):
        layers = page.locator(f".tile g.{layer}").first
        layers.wait_for(state="attached")
        seen = layers.is_visible()
        page.keyboard.press(key)
        assert layers.is_visible() != seen
        page.keyboard.press(key)
        assert layers.is_visible() == seen
    assert page.locator(".tile .lines").first.is_visible()
    page.keyboard.press("l")
    assert not page.locator(".tile .lines").first.is_visible()
    red, white = (
        page.locator(f".tile g.{layer} .points").first.evaluate("path => getComputedStyle(path).stroke")
        for layer in ("annotation", "flat")
    )
    assert (red, white) == ("rgb(255, 59, 48)", "rgb(255, 255, 255)")


def test_full_size(visit: Callable[[Path], Page], worst: Path, data: Path) -> None:
    page = visit(worst)
    dataset = open_dataset(data)
    page.select_option("#source", "300vw")
    page.keyboard.press("Escape")
    face = dataset[marked(page)]
    page.keyboard.press("Enter")
    picture = page.locator("#zoom-picture svg")
    picture.wait_for()
    height, width = face.image.shape[:2]
    assert picture.get_attribute("viewBox") == f"-0.5 -0.5 {width} {height}"
    path = picture.locator("g.flat .points").get_attribute("d")
    spots = np.array([spot.removesuffix("h0").split() for spot in path.split("M")[1:]], dtype=float)
    np.testing.assert_allclose(spots, face.to_picture(face.landmarks_2d), atol=0.04)
    frames = page.locator("#beside .frame").all_text_contents()
    assert f"frame {dataset.index.set_index('id')['frame'][face.id]}" in frames
    assert len(frames) >= 3
    before = page.evaluate("document.getElementById('turn').toDataURL()")
    page.keyboard.press("Shift+ArrowRight")
    turned = page.evaluate("document.getElementById('turn').toDataURL()")
    page.keyboard.press("0")
    assert page.evaluate("document.getElementById('turn').toDataURL()") == before != turned
    page.keyboard.press("z")
    assert picture.get_attribute("viewBox") != f"-0.5 -0.5 {width} {height}"
    page.keyboard.press("r")
    assert page.locator("#zoom-id").text_content() != face.id
    page.keyboard.press("k")
    assert (page.locator("#zoom-id").text_content(), page.locator("#zoom-verdict").text_content()) == (
        face.id,
        "reject",
    )
    page.keyboard.press("Enter")
    assert not page.locator("#zoom").is_visible()
    assert badge(page, face.id) == "reject"


def test_filter_and_sort(visit: Callable[[Path], Page], worst: Path, data: Path) -> None:
    page = visit(worst)
    index = open_dataset(data).index.dropna(subset="nme")
    page.select_option("#source", "menpo")
    assert set(shown(page)) == set(index.loc[index["source"] == "menpo", "id"])
    page.select_option("#source", "")
    page.select_option("#yaw", "30-60")
    turned = index["yaw"].round(1).abs()
    assert set(shown(page)) <= set(index.loc[(turned > 30) & (turned <= 60), "id"])
    page.select_option("#yaw", "")
    for name, values in (("confidence", index["confidence"].round(3)), ("id", index["id"])):
        page.select_option("#sort", name)
        expected = values.sort_values(kind="stable").tolist()[:60]
        found = index.set_index("id").loc[shown(page)].reset_index()[name]
        assert (found.round(3) if name == "confidence" else found).tolist() == expected
    page.check("#reverse")
    assert shown(page) == sorted(index["id"], reverse=True)[:60]
    page.keyboard.press("f")
    page.keyboard.type("indoor_002")
    assert shown(page) == ["300w/01_Indoor/indoor_002"]
    page.fill("#find", "no such face")
    assert page.locator("#empty").is_visible()
    page.fill("#find", "")
    page.keyboard.press("Escape")
    first = marked(page)
    page.keyboard.press("a")
    page.select_option("#verdict", "accept")
    assert shown(page) == [first]
    page.select_option("#verdict", "none")
    assert first not in shown(page)


def test_decisions_are_kept_exported_applied_and_imported(
    visit: Callable[[Path], Page], worst: Path, data: Path, tmp_path: Path, ls3dw: Command
) -> None:
    page = visit(worst)
    first, second = shown(page)[:2]
    page.keyboard.press("r")
    page.keyboard.press("n")
    page.keyboard.type("Ärger & <b>Ruß</b>")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("w")
    page.reload()
    assert (badge(page, first), badge(page, second)) == ("reject", "annotation wrong ✎")
    page.keyboard.press("e")
    assert "Say who you are first" in page.locator("#status").text_content()
    file = export(page, tmp_path / "decisions.json")
    found = json.loads(file.read_text())
    assert (found["who"], found["version"], found["gallery"]) == ("Ada", "v1", "worst")
    decided = {entry["id"]: (entry["verdict"], entry["note"]) for entry in found["decisions"]}
    assert decided == {first: ("reject", ""), second: ("annotation wrong", "Ärger & <b>Ruß</b>")}
    assert ls3dw("audit", "apply", data, file).status == 0
    after = open_dataset(data)
    assert first not in set(after.index["id"])
    assert after.index.set_index("id")["audit"][second] == "annotation wrong"
    assert verify(data)[1] == []

    page.evaluate("localStorage.clear()")
    page.reload()
    assert badge(page, first) == ""
    page.set_input_files("#file", file)
    page.locator("#status", has_text="2 decisions taken").wait_for()
    assert (badge(page, first), badge(page, second)) == ("reject", "annotation wrong ✎")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(found | {"manifest": "0" * 64}))
    page.set_input_files("#file", other)
    page.locator("#status", has_text="another data set").wait_for()
    assert page.locator("#grid .tile").count() == 60


NASTY = (
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(2)</script>",
    "javascript:alert(3)",
    "'); alert(4); ('",
    "${alert(5)}`\\u003cb\\u003e\\",
    "ünï\u202ecödé\u2028\U0001d4bbace",
    "__proto__",
    "&lt;b&gt;<b>x</b>",
)


def test_hostile_names_are_text_and_do_nothing(
    visit: Callable[[Path], Page], sample_data: Path, tmp_path: Path, ls3dw: Command
) -> None:
    folder = tmp_path / '<b onclick="alert(6)">&'
    data = shutil.copytree(sample_data, folder)

    def change(source: str, rows: Rows) -> None:
        if source == "menpo":
            names = [NASTY[row % len(NASTY)] if row < len(NASTY) else str(row) for row in range(len(rows["id"]))]
            rows["id"] = np.array([f"menpo/{name}" for name in names], dtype=object)
            if "media" in rows:
                rows["media"] = rows["subset"] = np.array(names, dtype=object)

    rewrite(data, change)
    page = visit(write_gallery(open_dataset(data), GalleryOptions("confidence", sources=("menpo",))).page)
    assert {f"menpo/{name}" for name in NASTY} <= set(shown(page))
    assert folder.name in page.locator("#about").text_content()
    for name in NASTY:
        page.fill("#find", name)
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        page.keyboard.type(name)
        page.keyboard.press("Control+Enter")
        page.keyboard.press("Enter")
        page.locator("#zoom-picture svg").wait_for()
        assert page.locator("#zoom-id").text_content() == f"menpo/{name}"
        assert page.locator("#facts dd").last.text_content() == name.strip()
        page.keyboard.press("Escape")
        page.keyboard.press("r")
    file = export(page, tmp_path / "decisions.json", NASTY[0])
    assert {entry["note"] for entry in json.loads(file.read_text())["decisions"]} >= set(NASTY)
    assert ls3dw("audit", "apply", data, file).status == 0
    assert not {f"menpo/{name}" for name in NASTY} & set(open_dataset(data).index["id"])
    page = visit(write_gallery(open_dataset(data), GalleryOptions("drops")).page)
    assert {f"menpo/{name}" for name in NASTY} == set(shown(page))
    assert page.locator("img, b b, script:not([src])").count() == 0


def test_the_policy_holds(browser: Any, worst: Path) -> None:
    """What slips in as markup could neither run nor load anything."""
    page = browser.new_page()
    page.goto(worst.as_uri())
    tried = page.evaluate("""async () => {
        const refused = [];
        document.addEventListener("securitypolicyviolation", (event) => {
            refused.push(event.effectiveDirective);
            event.stopImmediatePropagation();
        }, true);
        document.body.insertAdjacentHTML("beforeend",
            '<a id="x" onclick="window.ran = 1">x</a><iframe src="data:text/html,x"></iframe>');
        document.getElementById("x").click();
        // A busy machine tells late.
        for (let round = 0; round < 100 && !(round > 2 && refused.length > 1); round++) {
            await new Promise((done) => setTimeout(done, 100));
        }
        return [refused, window.ran ?? 0];
    }""")
    assert set(tried[0]) == {"script-src-attr", "frame-src"}
    assert tried[1] == 0
    page.close()


@pytest.mark.parametrize("width", [320, 700, 1900])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_at_any_width(browser: Any, worst: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(worst.as_uri())
    page.wait_for_selector(".tile")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) > 7
    assert contrast(page.locator("#status").evaluate("e => getComputedStyle(e).color"), paper) > 4.5
    names = page.evaluate("""[...document.querySelectorAll("button, input:not([hidden]), select, svg, canvas")]
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length
          || e.getAttribute("aria-labelledby"))).map((e) => e.outerHTML)""")
    assert names == [], "everything has a name"
    page.close()


def contrast(first: str, second: str) -> float:
    """WCAG's contrast of two colours of the form rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
