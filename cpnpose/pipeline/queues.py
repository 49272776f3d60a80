"""Stages that run at the same time: the only threads of the pipeline.

Every queue is bounded, every thread is joined, and an error of a stage reaches whoever takes the results, in its place
in the order: all results before it come out first.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_POLL_S = 0.1


class Background(Generic[T]):
    """An iterator whose source runs ahead in a thread of its own. A context manager: leaving it ends the thread.

    Args:
        source: is iterated in the thread; a generator is also closed there.
        ahead: most items that wait to be taken.
        name: of the stage, for the thread and as a note on its errors.
        watch: is told the stage's name, how many items wait and how many could, each time that one is taken.
    """

    def __init__(
        self, source: Iterable[T], *, ahead: int, name: str, watch: Callable[[str, int, int], None] | None = None
    ) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(max(1, ahead))
        self._stop = threading.Event()
        self._done = False
        self._name, self._watch = name, watch
        self._thread = threading.Thread(target=self._run, name=f"cpnpose-{name}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        if self._watch is not None:
            self._watch(self._name, self._queue.qsize(), self._queue.maxsize)
        while True:
            with suppress(queue.Empty):
                item, error, last = self._queue.get(timeout=_POLL_S)
                break
            if self._stop.is_set():  # closed by another thread
                raise StopIteration
        if last:
            self._done = True
            self.close()
            if error is not None:
                raise error
            raise StopIteration
        return item  # type: ignore[return-value]

    def __enter__(self) -> Background[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        return self._queue.qsize()

    def close(self) -> None:
        """End the thread and wait for it. What it made and nobody took is dropped."""
        self._done = True
        self._stop.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            self._thread.join(_POLL_S)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source:
                if not self._put(item, None, False):
                    break
        except BaseException as caught:
            error = caught
            error.add_note(f"in the stage {self._name!r} of the pipeline")
        finally:
            if isinstance(self._source, Generator):
                self._source.close()
        self._put(None, error, True)

    def _put(self, item: T | None, error: BaseException | None, last: bool) -> bool:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put((item, error, last), timeout=_POLL_S)
                return True
        return False


def map_in_order(
    function: Callable[[T], R], source: Iterable[T], *, workers: int, name: str
) -> Generator[R, None, None]:
    """``map(function, source)`` with ``workers`` calls at the same time; results keep the order of the source.

    At most ``workers + 1`` items are begun and not yet taken. An error, of the source or of a call, comes after all
    results before it. Closing the generator waits for the calls under way.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix=f"cpnpose-{name}") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            error: Exception | None = None
            items = iter(source)
            while True:
                try:
                    item = next(items)
                except StopIteration:
                    break
                except Exception as caught:
                    error = caught
                    break
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            if error is not None:
                raise error
        finally:
            for future in waiting:
                future.cancel()
