from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from cpnpose.pipeline import memory

_SCRIPT = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from cpnpose.pipeline.memory import keep_freed_memory

if sys.argv[1] != "default":
    keep_freed_memory(training=sys.argv[1] == "training")
size = int(sys.argv[2]) << 20

def frames(count):
    for _ in range(count):
        blocks = [np.ones(size, np.uint8) for _ in range(5)]
        del blocks

with ThreadPoolExecutor(1) as pool:
    for thread in (frames, lambda count: pool.submit(frames, count).result()):
        thread(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    frames(10)
    pool.submit(frames, 10).result()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("how", "megabytes"), [("keep", 20), ("training", 120)])
def test_memory_is_not_asked_for_anew_with_every_frame(how: str, megabytes: int) -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", _SCRIPT, how, str(megabytes)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert faults(how) < 0.05 * faults("default")


def test_free_memory_is_told_wherever_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_left", lambda: None)
    assert 10 << 20 < memory.available_memory() < 1 << 50
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert 10 << 20 < memory.available_memory() < 1 << 50
    monkeypatch.delattr(memory.os, "sysconf", raising=False)
    assert memory.available_memory() == 4 << 30


@pytest.mark.parametrize(("left", "expected"), [(5 << 20, 5 << 20), (0, 0), (1 << 60, 1 << 30), (None, 1 << 30)])
def test_a_container_gives_what_its_limit_leaves(
    monkeypatch: pytest.MonkeyPatch, left: int | None, expected: int
) -> None:
    monkeypatch.setattr(memory, "_of_machine", lambda: 1 << 30)
    monkeypatch.setattr(memory, "memory_left", lambda: left)
    assert memory.available_memory() == expected
