"""Reading from a pipe in such a way that the waiting can be ended."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.1


class Pipe:
    """What FFmpeg reads of a pipe, as PyAV takes it: :meth:`read`, and :attr:`name`.

    FFmpeg's own reading of a pipe whose sender is silent ends with the sender only: a thread in it can be neither
    stopped nor joined. Raises OSError; waits for a sender.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._stop = threading.Event()
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, size: int) -> bytes:
        """The next bytes, ``size`` at most, as soon as there are any; none at the end or after :meth:`stop`."""
        try:
            while not self._stop.is_set():
                if select.select([self._descriptor], [], [], _POLL_S)[0]:
                    return os.read(self._descriptor, size)
        except KeyboardInterrupt as interrupt:
            raise _InterruptedError from interrupt
        return b""

    def stop(self) -> None:
        """Whoever reads, in whatever thread, is at the end."""
        self._stop.set()

    def close(self) -> None:
        """Let go of the pipe. Nobody may be reading it."""
        os.close(self._descriptor)


class _InterruptedError(Exception):
    """A KeyboardInterrupt in :meth:`Pipe.read`: PyAV hands on nothing but an Exception."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this context, Ctrl-C reaches a main thread that waits for a pipe in FFmpeg."""
    try:
        yield
    except _InterruptedError:
        raise KeyboardInterrupt from None
