"""Downloads end as a user would wish, whatever the server does. The server runs here, on this machine alone."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command

from ls3dw.core.files import sha256_file
from ls3dw.errors import ModelError
from ls3dw.models import FAN, load
from ls3dw.models.weights.cache import PublishedWeights
from ls3dw.models.weights.fetch import CHUNK, TRIES, FetchOptions, fetch

BODY = np.random.default_rng(0).bytes(5 * CHUNK + 123)
FILE = "tiny-0123.pth.tar"


@dataclass
class Server:
    """What the server does, and what it was asked. cut: bytes of an answer after which it hangs up, one an answer;
    stall: stop after these bytes, and say nothing more; status: answer with this instead."""

    body: bytes = BODY
    ranges: bool = True
    tag: str | None = '"first"'
    cut: list[int] = field(default_factory=list)
    stall: int | None = None
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve `FILE` over HTTP from a thread."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, state)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}/weights"
    yield state
    state.release.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def answer(request: BaseHTTPRequestHandler, state: Server) -> None:
    asked = request.headers.get("Range")
    state.asked.append(asked)
    if state.status or not request.path.endswith(f"/{FILE}"):
        request.send_error(state.status or 404)
        return
    start = 0
    wanted = re.fullmatch(r"bytes=(\d+)-", asked or "")
    same = request.headers.get("If-Range") in (None, state.tag)
    if wanted and state.ranges and same:
        start = int(wanted.group(1))
        if start >= len(state.body):
            request.send_error(416)
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
    else:
        request.send_response(200)
    if state.tag:
        request.send_header("ETag", state.tag)
    request.send_header("Content-Length", str(len(state.body) - start))
    request.end_headers()
    end = start + state.cut.pop(0) if state.cut else len(state.body)
    if state.stall is not None:
        request.wfile.write(state.body[start : start + state.stall])
        request.wfile.flush()
        state.release.wait(20)
        return
    request.wfile.write(state.body[start:end])


@pytest.fixture
def item(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedWeights:
    """Published weights on the server, and an empty cache folder."""
    monkeypatch.setenv("LS3DW_HOME", str(tmp_path / "home"))
    digest = hashlib.sha256(BODY).hexdigest()[:10]
    known = {"licence": "CC0", "homepage": "https://example.org", "network": {"class": "FAN"}}
    return PublishedWeights(
        "tiny", "tiny", FILE, "2d", "PyTorch state dict", urls=(server.url,), sha256=digest, **known
    )


QUICK = FetchOptions(timeout=5, pause=0)


def fault_of(item: PublishedWeights, options: FetchOptions = QUICK) -> str:
    """Return the one line that `fetch` ends with."""
    with pytest.raises(ModelError) as caught:
        fetch(item, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(item: PublishedWeights) -> set[str]:
    """Name what lies in the folder of downloads."""
    folder = item.download.parent
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.is_dir() else set()


def test_a_file_arrives_whole_and_once(server: Server, item: PublishedWeights) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(item, QUICK, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert fetch(item, QUICK) == path
    assert server.asked == [None]
    assert left(item) == {FILE}


def test_what_breaks_off_goes_on_from_there(server: Server, item: PublishedWeights) -> None:
    server.cut = [200_000, 100_000]
    assert fetch(item, QUICK).read_bytes() == BODY
    assert server.asked == [None, "bytes=200000-", "bytes=300000-"]


@pytest.mark.parametrize("tag", ['"first"', None])
def test_what_was_interrupted_goes_on_another_day(server: Server, item: PublishedWeights, tag: str | None) -> None:
    server.tag = tag
    server.cut = [CHUNK] * TRIES
    assert "broke off" in fault_of(item)
    assert fetch(item, QUICK).read_bytes() == BODY
    assert server.asked[-1] == f"bytes={TRIES * CHUNK}-"


def test_ctrl_c_keeps_what_came(server: Server, item: PublishedWeights) -> None:
    def stop(done: int, total: int | None) -> None:
        if done >= CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(item, QUICK, stop)
    assert fetch(item, QUICK).read_bytes() == BODY
    assert server.asked[1] is not None


def test_a_file_that_changed_meanwhile_starts_again(server: Server, item: PublishedWeights) -> None:
    server.cut = [CHUNK] * TRIES
    server.body = BODY[::-1]
    fault_of(item)
    server.body, server.tag = BODY, '"second"'
    assert fetch(item, QUICK).read_bytes() == BODY


def test_a_server_without_ranges_starts_again(server: Server, item: PublishedWeights) -> None:
    server.ranges = False
    server.cut = [CHUNK]
    assert fetch(item, QUICK).read_bytes() == BODY
    assert server.asked == [None, f"bytes={CHUNK}-"]


def test_without_checksum_and_mark_nothing_is_patched_together(server: Server, item: PublishedWeights) -> None:
    server.tag = None
    server.cut = [CHUNK]
    assert fetch(replace(item, sha256=None), QUICK).read_bytes() == BODY
    assert server.asked == [None, None]


def test_a_partial_file_that_is_too_long_starts_again(server: Server, item: PublishedWeights) -> None:
    server.cut = [CHUNK] * TRIES
    fault_of(item)
    next(path for path in item.download.parent.glob("*.partial")).write_bytes(BODY + b"more")
    assert fetch(item, QUICK).read_bytes() == BODY


def test_a_corrupted_download_is_deleted(server: Server, item: PublishedWeights) -> None:
    server.body = BODY[:-1] + b"?"
    fault = fault_of(item)
    assert item.sha256 is not None
    assert f"expected {item.sha256}" in fault
    assert "deleted" in fault
    assert left(item) == set()


def test_a_file_damaged_in_the_cache_is_deleted(item: PublishedWeights) -> None:
    item.download.parent.mkdir(parents=True)
    item.download.write_bytes(BODY[:-1])
    assert "deleted" in fault_of(item)
    assert fetch(item, QUICK).read_bytes() == BODY


def test_a_missing_file_names_every_address(server: Server, item: PublishedWeights) -> None:
    mirror = server.url.replace("/weights", "/other")
    fault = fault_of(replace(item, file="none.pth"), replace(QUICK, mirrors=(mirror,)))
    assert f"{mirror}/none.pth: 404" in fault
    assert f"{server.url}/none.pth: 404" in fault
    assert server.asked == [None, None]


def test_mirrors_are_tried_in_order(server: Server, item: PublishedWeights, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / FILE).write_bytes(BODY)
    mirrors = ((tmp_path / "empty").as_uri(), (tmp_path / "mirror").as_uri())
    assert fetch(item, replace(QUICK, mirrors=mirrors)).read_bytes() == BODY
    assert server.asked == []


def test_a_server_that_stalls_is_left(server: Server, item: PublishedWeights) -> None:
    server.stall = 1000
    start = time.monotonic()
    fault = fault_of(item, FetchOptions(timeout=0.2, pause=0))
    assert "no byte for 0.2 s" in fault
    assert time.monotonic() - start < 10
    server.stall = None
    assert fetch(item, QUICK).read_bytes() == BODY
    assert server.asked[-1] == f"bytes={TRIES * 1000}-", "what came before the stall is kept"


def test_a_server_in_trouble_is_asked_again(server: Server, item: PublishedWeights) -> None:
    server.status = 503
    assert "503" in fault_of(item)
    assert len(server.asked) == TRIES


def test_nobody_answers(item: PublishedWeights) -> None:
    fault = fault_of(replace(item, urls=("http://127.0.0.1:9/",)))
    assert f"http://127.0.0.1:9/{FILE}: " in fault
    assert str(item.download.parent) in fault, "where to put the file by hand"


def test_offline_touches_nothing(server: Server, item: PublishedWeights, tmp_path: Path) -> None:
    offline = replace(QUICK, offline=True)
    assert "--offline" in fault_of(item, offline)
    (tmp_path / FILE).write_bytes(BODY)
    assert fetch(item, replace(offline, mirrors=(tmp_path.as_uri(),))).read_bytes() == BODY
    assert fetch(item, offline).read_bytes() == BODY
    assert server.asked == []


def test_an_address_of_another_sort_is_refused(item: PublishedWeights) -> None:
    assert "expected an address" in fault_of(item, replace(QUICK, mirrors=("/some/folder",)))


def test_two_processes_do_not_write_one_file(server: Server, item: PublishedWeights) -> None:
    server.stall = 1000
    slow = threading.Thread(target=lambda: fault_of(item, FetchOptions(timeout=1, pause=0)))
    slow.start()
    while not server.asked:
        time.sleep(0.01)
    assert "another process" in fault_of(item)
    server.release.set()
    slow.join()


def test_fetched_weights_can_be_used_by_name(
    ls3dw: Command, server: Server, item: PublishedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torch.save(FAN(1, 16).state_dict(), tmp_path / FILE)
    tiny = replace(item, sha256=sha256_file(tmp_path / FILE)[:10], pooling="avg")
    server.body = (tmp_path / FILE).read_bytes()
    # cache last: a module that is first imported here takes its `published` from there.
    for module in ("zoo", "importing", "cache"):
        monkeypatch.setattr(f"ls3dw.models.weights.{module}.published", lambda: {"tiny": tiny})
    ended = ls3dw("models", "fetch", "tiny", "--json")
    assert ended.status == 0, ended.err
    made = json.loads(ended.out)
    assert (made["name"], made["kind"], made["source"]["sha256"][:10]) == ("tiny", "2d", tiny.sha256)
    assert load("tiny", ("2d",)).contract.network["stacks"] == 1
    states = {entry["name"]: entry["status"] for entry in json.loads(ls3dw("models", "list", "--json").out)}
    assert states["tiny"] == "imported"
    assert ls3dw("models", "fetch", "tiny", "--offline").status == 0
    assert "known are tiny" in ls3dw("models", "fetch", "tinny").error
