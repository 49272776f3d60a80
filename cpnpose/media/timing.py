"""Timestamps of decoded frames: every frame gets one, and they grow."""

from __future__ import annotations

from fractions import Fraction


class FrameClock:
    """Gives each frame of a stream its timestamp in ticks of the stream's time base.

    A stream's own timestamps pass unchanged as long as they grow. A missing one continues at the nominal frame
    duration; a repeated one moves up by one tick; where the stream jumps back by more than a second (recordings that
    were joined, a camera that was restarted) or behind times that were missing, the rest is shifted so that time goes
    on.
    """

    def __init__(self, time_base: Fraction, fps: Fraction | None) -> None:
        self._frame_ticks = max(1, round(1 / ((fps or Fraction(25)) * time_base)))
        self._jump_ticks = max(1, round(1 / time_base))
        self._last: int | None = None
        self._guessed = False
        self._shift = 0
        self.end = 0
        """Ticks at which the last frame so far ends."""

    def stamp(self, pts: int | None, duration: int | None = None) -> int:
        """The timestamp of the next frame, given its ``pts`` and ``duration`` in ticks as far as they are known."""
        step = duration if duration else self._frame_ticks
        if pts is None:
            ticks = 0 if self._last is None else self._last + step
        else:
            ticks = pts + self._shift
            if self._last is not None and ticks <= self._last:
                back = self._last - ticks
                if back > self._jump_ticks or (self._guessed and back >= step):
                    self._shift += self._last + step - ticks
                    ticks = self._last + step
                else:
                    ticks = self._last + 1
        self._guessed = pts is None
        self._last = ticks
        self.end = ticks + step
        return ticks
