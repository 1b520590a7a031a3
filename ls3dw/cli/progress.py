"""Progress of a build: on stderr, as a bar with rate and time left where that is a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ls3dw.building.plan import Plan
    from ls3dw.building.prepare import Chunk
    from ls3dw.sources import Count


def difference(count: Count) -> str:
    """Say how many were published where that is not what was found."""
    if count.expected is None or count.expected == count.found:
        return ""
    return f", {count.expected} were published"


class Progress:
    """Watches a build; a context manager. quiet: say nothing of counts that differ from the published ones."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._read = 0
        self._start = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def begin(self, plan: Plan) -> None:
        """Take note of what there is to do."""
        for source in plan.sources if not self._quiet else []:
            for count in source.counts:
                if note := difference(count):
                    click.echo(
                        f"note: {source.name} {count.subset}: {count.found} {source.counted} found{note}", err=True
                    )
        self._bar = click.progressbar(
            length=plan.units,
            label="faces",
            file=sys.stderr,
            show_pos=True,
            item_show_func=self._rate,
            hidden=not sys.stderr.isatty(),
        )
        self._bar.__enter__()
        self._bar.update(sum(min(record.read, record.expected) for record in plan.records))
        self._start = time.monotonic()

    def report(self, chunk: Chunk) -> None:
        """Count what one chunk added."""
        self._read += chunk.read
        self._bar.update(chunk.read, chunk)

    def _rate(self, chunk: Chunk | None) -> str | None:
        if chunk is None:
            return None
        return f"{self._read / (time.monotonic() - self._start):.1f} a second, {chunk.source}/{chunk.part}"
