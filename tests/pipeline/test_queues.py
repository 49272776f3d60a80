from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from cpnpose.pipeline.queues import Background, map_in_order


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cpnpose-")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threads_of_ours() == []


def test_background_keeps_order_and_ends() -> None:
    with Background(iter(range(100)), ahead=3, name="count") as numbers:
        assert list(numbers) == list(range(100))
        assert list(numbers) == []


def test_background_runs_ahead_no_further_than_asked() -> None:
    made = []

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with Background(source(), ahead=3, name="ahead") as numbers:
        assert next(numbers) == 0
        time.sleep(0.3)
        assert len(made) <= 1 + 3 + 1  # taken, waiting, and the one that has no room
        assert numbers.waiting == 3


def test_background_closes_its_generator_in_its_thread() -> None:
    closed_in = []

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed_in.append(threading.current_thread().name)

    with Background(source(), ahead=2, name="closing") as numbers:
        next(numbers)
    assert closed_in == ["cpnpose-closing"]


def test_error_of_the_source_comes_after_its_items_and_names_the_stage() -> None:
    def source() -> Iterator[int]:
        yield from range(4)
        raise ValueError("broken packet")

    got: list[int] = []
    with Background(source(), ahead=2, name="decode") as numbers, pytest.raises(ValueError, match="broken packet") as e:
        got.extend(numbers)
    assert got == [0, 1, 2, 3]
    assert any("decode" in note for note in e.value.__notes__)


def test_closing_from_another_thread_wakes_whoever_waits() -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        release.wait(10)
        yield 1

    numbers = Background(source(), ahead=1, name="slow")
    got: list[list[int]] = []
    consumer = threading.Thread(target=lambda: got.append(list(numbers)))
    consumer.start()
    closer = threading.Thread(target=numbers.close)
    closer.start()
    consumer.join(5)
    assert got == [[]]
    release.set()
    closer.join(5)


def test_map_keeps_order_whatever_takes_longer() -> None:
    def slow_for_small(number: int) -> int:
        time.sleep(0.03 if number % 3 == 0 else 0)
        return number * 2

    assert list(map_in_order(slow_for_small, range(20), workers=4, name="double")) == [2 * n for n in range(20)]


def test_map_is_bounded() -> None:
    begun = []
    results = map_in_order(begun.append, range(100), workers=2, name="bounded")
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 3
    results.close()


def test_map_raises_in_the_order_of_the_items() -> None:
    def fail_at_five(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError("five")
        time.sleep(0.02 if number < 5 else 0)
        return number

    got: list[int] = []
    with pytest.raises(ZeroDivisionError, match="five"):
        got.extend(map_in_order(fail_at_five, range(20), workers=4, name="fail"))
    assert got == [0, 1, 2, 3, 4]


def test_map_gives_all_results_before_an_error_of_the_source() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise OSError("disk gone")

    got: list[int] = []
    with pytest.raises(OSError, match="disk gone"):
        got.extend(map_in_order(lambda n: n, source(), workers=3, name="source"))
    assert got == [0, 1, 2, 3, 4]


_INTERRUPTED = """
import signal, threading, time
from cpnpose.pipeline.queues import map_in_order

begun = []

def interrupt(number):
    begun.append(number)
    time.sleep(0.2)  # meanwhile the next item comes into the queue, and the result of this one is waited for
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(0.5)

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
try:
    next(map_in_order(interrupt, range(10), workers=1, name="interrupted"))
except KeyboardInterrupt:
    print("interrupted", begun)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a waiting thread cannot be interrupted here")
def test_what_the_map_has_not_begun_when_it_is_interrupted_is_never_begun() -> None:
    """In a process of its own: in one in which NNCF has quantized a network, the signal ends it."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted [0]\n", done.stderr
