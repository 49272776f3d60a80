"""Ctrl-C at a moment when files can be closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class InterruptAtRest:
    """Within this context, Ctrl-C (and SIGTERM, and SIGHUP of a terminal that closes, unless ignored as by `nohup`)
    raises KeyboardInterrupt only while the program waits, not while it writes or closes its files: a frame is in all
    outputs or in none, and a file is whole. A third Ctrl-C interrupts at once. Enter it before whatever opens files,
    and call :meth:`check` when they are closed.

    In another thread than the main one it does nothing.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._waiting = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptAtRest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The part in which Ctrl-C may interrupt; raises at once if it was pressed before."""
        self._waiting = True
        try:
            self.check()
            yield
        finally:
            self._waiting = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed and has not interrupted anything yet."""
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        if (self._waiting and self._asked == 1) or self._asked >= 3:
            raise KeyboardInterrupt
