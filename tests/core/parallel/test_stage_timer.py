"""The seconds of stages add up, and the table names what a build waits for."""

from __future__ import annotations

from ls3dw.core.parallel.stage_timer import STAGES, StageTimer, render


def test_the_table_names_what_is_busiest() -> None:
    times = StageTimer()
    times.add({"decode": 12.0, "encode pictures": 6.0, "wait: others are behind": 2.0, "networks": 3.0})
    times.add({"networks": 1.0, "wait: networks run": 4.0, "wait: no faces": 2.0, "write shards": 1.0})
    text = render(times.seconds, 10.0, {"decoding": 2, "networks": 1, "writing": 1})
    assert text.splitlines()[-1].startswith("busy in 10.0 s: decoding 90%, networks 80%, writing 10%")
    assert len(text.splitlines()) == len(STAGES) + 2
