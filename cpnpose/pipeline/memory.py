"""Memory of the machine: what is free of it, and what is used again and again for the pictures of a video."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

from cpnpose.cgroup import memory_left

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_LARGEST_POOLED = 32 << 20  # the most that glibc accepts
_KEPT = 512 << 20
_ALL = (1 << 31) - 1
_UNKNOWN = 4 << 30


def keep_freed_memory(*, training: bool = False) -> None:
    """Have this process keep freed memory for the next frame, in one pool for all threads.

    By default glibc gives large blocks back to the system and gets them anew, page by page, with every frame: a tenth
    of the processor's work in a run over a video. At most half a gigabyte is kept, and no block of more than 32 MB; in
    ``training``, whose steps fill gigabytes with much larger ones, all: it takes a fifth less time, and no more memory
    than a step does. Call it before threads are started; where the C library is another one, nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_POOLED)
        mallopt(_M_TRIM_THRESHOLD, _ALL if training else _KEPT)
        if training:
            mallopt(_M_MMAP_MAX, 0)


def available_memory() -> int:
    """Bytes that this machine can still give without swapping, in a container those that its limit leaves: as Linux
    estimates them; elsewhere half of all memory, and 4 GB where the system does not tell that either."""
    left = memory_left()
    return _of_machine() if left is None else min(_of_machine(), left)


def _of_machine() -> int:
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return _UNKNOWN
