"""The processor that this process runs on."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores that this process may use: all of the machine, or those that it was restricted to."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
