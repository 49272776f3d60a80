"""Memory that is used again and again for the pictures and feature maps of a video."""

from __future__ import annotations

import ctypes
import sys

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_POOLED = 32 << 20  # the most that glibc accepts
_KEPT = 512 << 20


def keep_freed_memory() -> None:
    """Have this process keep freed memory for the next frame, in one pool for all threads.

    By default glibc gives large blocks back to the system and gets them anew, page by page, with every frame: a tenth
    of the processor's work in a run over a video. At most half a gigabyte is kept. Call it before threads are started;
    where the C library is another one, nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_POOLED)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
