"""Progress of a command: on stderr, as a bar with rate and time left where that is a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ls3dw.core.progress import Progress


class Bar:
    """Draws the progress that the library reports; a context manager. label: what is counted."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._begun = 0
        self._start = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def __call__(self, progress: Progress) -> None:
        """Move the bar. The first call sets its length and what was finished before."""
        if self._bar is None:
            self._begun, self._start = progress.done, time.monotonic()
            self._bar = click.progressbar(
                length=progress.total,
                label=self._label,
                file=sys.stderr,
                show_pos=True,
                item_show_func=self._rate,
                hidden=not sys.stderr.isatty(),
            )
            self._bar.__enter__()
        self._bar.update(progress.done - self._bar.pos, progress)

    def _rate(self, progress: Progress | None) -> str | None:
        seconds = time.monotonic() - self._start
        if progress is None or not progress.where or not seconds:
            return None
        return f"{(progress.done - self._begun) / seconds:.1f} a second, {progress.where}"
