"""The constant frame rate of a container without timestamps (AVI) in which every frame has a place at its own time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet

from cpnpose.errors import InputError
from cpnpose.media.rational import fraction
from cpnpose.media.source import is_stored, open_input, origin_of, pick_video, rate_of
from cpnpose.media.timing import FrameClock

_RATES = (60, 120, 240)
"""Frame rates to try where a video's own is too slow. A place without a frame costs 24 bytes and shows the last one."""
LIP_SYNC_S = 0.1
"""Seconds that a picture may come late before it is seen to be out of step with the sound."""


class FrameGrid:
    """Puts frames on a grid of places, in order, one frame to a place.

    rate: places per second. late_s: by how much the latest frame so far stands behind its time, in seconds.
    """

    def __init__(self, rate: Fraction) -> None:
        self.rate, self.late_s = rate, 0.0
        self._last = -1

    def place(self, time_s: float) -> None:
        """Put the next frame, to be shown at ``time_s``, in the nearest place that is free."""
        self._last = max(self._last + 1, round(time_s * self.rate.numerator / self.rate.denominator))
        self.late_s = max(self.late_s, self._last * self.rate.denominator / self.rate.numerator - time_s)

    @property
    def holds_times(self) -> bool:
        """Whether no frame so far comes too late."""
        return self.late_s <= max(LIP_SYNC_S, float(1 / self.rate))


def grid_rate(source: str | Path, start: float, end: float | None, fps: Fraction | None) -> Fraction | None:
    """``fps``, the frame rate meant for the output, if ``source`` keeps to its own from ``start`` to ``end`` (seconds);
    else one at which its frames stand at their times. Reads the packets' times, without decoding."""
    if not is_stored(source):
        return fps
    try:
        with open_input(source) as container:
            stream = pick_video(container, str(source))
            own, time_base = rate_of(container, stream), fraction(stream.time_base)
            if own is None or time_base is None:
                return fps
            grids = [FrameGrid(rate) for rate in (own, *map(Fraction, _RATES)) if rate >= own]
            origin = float(origin_of(container)) + start
            tick, clock = float(time_base), FrameClock(time_base, own)
            for pts in _in_order_of_display(container.demux(stream)):
                time_s = clock.stamp(pts) * tick - origin
                if end is not None and time_s >= end - start:
                    break
                if time_s >= 0:
                    for grid in grids:
                        grid.place(time_s)
    except (InputError, av.error.FFmpegError):
        return fps  # What is wrong with the file is told by those who read it.
    if grids[0].holds_times:
        return fps
    return next((grid.rate for grid in grids if grid.holds_times), grids[-1].rate)


def _in_order_of_display(packets: Iterator[Packet[Any]]) -> Iterator[int]:
    waiting: list[int] = []
    last_dts: int | None = None
    for packet in packets:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or not packet.size or packet.is_discard:
            continue
        if last_dts is not None and packet.dts is not None and packet.dts < last_dts:  # recordings that were joined
            yield from sorted(waiting)
            waiting.clear()
        last_dts = packet.dts
        heapq.heappush(waiting, time)
        while waiting and packet.dts is not None and waiting[0] <= packet.dts:
            yield heapq.heappop(waiting)
    yield from sorted(waiting)
