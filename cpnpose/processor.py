"""The processor that this process runs on."""

from __future__ import annotations

import math
import os

from cpnpose.cgroup import cpu_quota


def available_cores() -> int:
    """Cores that this process may use: all of the machine, or those that it was restricted to; in a container with a
    limit on processor time as many as it comes to, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))
