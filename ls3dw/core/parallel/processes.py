"""Plain processes of ours: how they start, find their socket, end with their parent, and report an error.

They are not those of multiprocessing or of a pool library: those run the main script again, or need helpers of their
own (a resource tracker, `pgrep`) that a Ctrl-C can hit while they end the pool, which then hangs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ls3dw.errors import WorkerError

_PROGRAM = """
import sys
main, descriptor, parent, *sys.path = sys.argv[1:]
from ls3dw.core.parallel.processes import run
run(main, int(descriptor), int(parent))
"""
"""What a process runs; it finds modules where its parent does, and never loads the parent's main script."""

_SOCKET_BYTES = 1 << 14
"""What a socket holds. What it holds keeps shared memory, so it is less than one item: a sender waits for the other."""


class Done:
    """Stands behind all that a process sends for one piece of work; holds the error that ended it, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a socket: ours and that of a process to start."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    return ends


def start(main: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that calls `main`, a "module:function", with the descriptor of its end of a socket pair.

    It never sees a Ctrl-C, which is for the parent alone. Its end of the pair is closed here: else that process's end
    would go unseen.
    """
    words = [sys.executable, "-c", _PROGRAM, main, str(theirs.fileno()), str(os.getpid()), *map(str, sys.path)]
    with _interrupts_blocked():
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    theirs.close()
    return process


def block_interrupts() -> None:
    """Keep Ctrl-C from this thread: the main one is to wake up and take it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from this thread for a moment; what it starts meanwhile inherits that from its first instruction."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def lost(process: subprocess.Popen[bytes], kind: str, advice: str, error: EOFError | OSError) -> Exception:
    """Say how a process ended, if it did: its socket closes a moment earlier. Else the error is this side's own."""
    try:
        status = process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return error
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    why = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
    return WorkerError(
        f"{kind} process {process.pid} was terminated {how}{why}; what is finished is kept: "
        f"run the same command again, {advice} if this comes back"
    )


def run(main: str, descriptor: int, parent: int) -> None:
    """Be such a process: this is its main function."""
    import importlib

    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    module, _, name = main.partition(":")
    function: Any = getattr(importlib.import_module(module), name)
    function(descriptor)


def portable(error: Exception, kind: str) -> Exception:
    """Note where an error comes from; one that cannot travel between processes becomes its text."""
    note = f"In a {kind} process:\n" + "".join(traceback.format_exception(error))
    error.add_note(note)
    try:
        if type(ForkingPickler.loads(ForkingPickler.dumps(error))) is type(error):
            return error
        reason = "it changes when it is pickled"
    except Exception as caught:  # noqa: BLE001 - pickling runs the error's own code
        reason = f"{type(caught).__name__}: {caught}"
    replacement = WorkerError(f"a {kind} process failed: {type(error).__name__}: {error}")
    replacement.add_note(f"{note}(cannot be pickled: {reason})")
    return replacement


def _follow(parent: int) -> None:
    """Do not outlive the parent, whatever this process is busy with."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
