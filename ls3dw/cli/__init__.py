"""The command line: a thin skin over the library. Each command lives in its own module and loads what it needs."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

import click

from ls3dw import __version__
from ls3dw.errors import Ls3dwError, OptionError

COMMANDS: Final[dict[str, str]] = {
    "build": "Sources to data set.",
    "sample": "Write the embedded sample in the real layouts.",
    "info": "What a data set holds.",
    "regenerate": "A new version of the annotations, the pictures untouched.",
    "versions": "The versions of a data set: list, pin, delete.",
    "diff": "What moved between two versions.",
    "verify": "Check that every byte of a data set is as written.",
    "evaluate": "Score landmarks against the sources' own points.",
    "gallery": "Pages on which people judge faces.",
    "audit": "Apply what people decided on a gallery.",
    "subset": "Draw subsets: balanced by pose, LS3D-W Balanced.",
    "split": "Split for training without leaks, and check two lists.",
    "head": "The head model of the rendered heads: build it, place its landmarks.",
    "export": "Write a data set in the layout of others.",
    "synth": "Render heads with exact landmarks, as a source.",
    "models": "The networks: bundled ones and files.",
    "train": "Train the networks of a pipeline.",
    "bench": "How fast each stage is on this machine.",
}

__all__ = ["COMMANDS", "main"]

_INTERRUPTED: Final = "interrupted; what was finished is kept, run the same command again to go on"


class _LazyGroup(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"ls3dw.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ls3dw")
def cli() -> None:
    """Rebuild LS3D-W: faces with 68 landmarks in 3D, as versioned shards that can be checked and annotated again."""


def main() -> None:
    """Run the command line: exit 0 done, 1 failed in one clear line, 2 wrong usage, 130 on Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Not where Ctrl-C is ignored, as in a shell's background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.Abort:
        status = _fail(_INTERRUPTED, 130)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except OptionError as error:
        status = _fail(f"Error: {error}; see --help", 2)
    except Ls3dwError as error:
        status = _fail(f"Error: {error}", 1)
    except OSError as error:
        status = _fail(f"Error: {error.filename or 'input or output'}: {_what(error)}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End at once on Ctrl-C: what is finished is on disk, and processes end when this one is gone.

    Not by KeyboardInterrupt: the import of numpy or torch may swallow it and be left half done, and threads that work
    in C make Python's own end take long or fail. Not by Python's stream: the signal may come while it writes.
    """
    cursor = "\033[?25h" if os.isatty(2) else ""  # a progress bar hides it
    with contextlib.suppress(OSError):
        os.write(2, f"{cursor}\n{_INTERRUPTED}\n".encode())
    os._exit(130)


def _what(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{text}; what is finished is kept: make room and run the same command again"
    return text


def _fail(message: str, status: int) -> int:
    """Say why in one line, whatever a library's text or a file's name has in it."""
    click.echo(" ".join(line.strip() for line in message.splitlines()), err=True)
    return status
