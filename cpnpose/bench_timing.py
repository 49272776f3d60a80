"""Timing of alternatives side by side, so that their ratios hold whatever the machine does meanwhile."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

_TOLERATED = 0.05
"""Share of one core that other processes may use during a call that counts."""
_TICK_S = 0.02  # two ticks of the kernel's clock: what cannot be told from rounding


@dataclass(frozen=True)
class Timing:
    """How long one call took."""

    seconds: float
    """Median of the calls that other processes left alone; the least of all where there was none."""
    calls: int
    """Calls that other processes left alone."""
    disturbed: int
    """Calls that were not."""


def race(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    limit_s: float = 30.0,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Time several functions in turns, after one call of each that does not count.

    Args:
        calls: by name.
        rounds: undisturbed calls of each that are enough.
        limit_s: no further round begins after this time; each function is called at least once.
        device: a graphics card whose queue is waited for after each call.
    """

    def once(function: Callable[[], object]) -> None:
        function()
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    clean: dict[str, list[float]] = {name: [] for name in calls}
    disturbed: dict[str, list[float]] = {name: [] for name in calls}
    for function in calls.values():
        once(function)
    start = time.perf_counter()
    while any(len(times) < rounds for times in clean.values()):
        for name, function in calls.items():
            others, begin = _others_s(), time.perf_counter()
            once(function)
            seconds = time.perf_counter() - begin
            alone = _others_s() - others <= _TOLERATED * seconds + _TICK_S
            (clean if alone else disturbed)[name].append(seconds)
        if time.perf_counter() - start > limit_s:
            break
    return {
        name: Timing(
            statistics.median(clean[name]) if clean[name] else min(disturbed[name]),
            len(clean[name]),
            len(disturbed[name]),
        )
        for name in calls
    }


def _others_s() -> float:
    """Core seconds that other processes have used, up to a constant; 0 where the system does not tell."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(value) for value in file.readline().split()[1:]]
    except OSError:
        return 0.0
    busy = sum(ticks[:3]) + sum(ticks[5:8])  # user, nice, system; interrupts and stolen time
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()
