"""The part of a video that is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from cpnpose.errors import InputError, OptionError
from cpnpose.media.source import is_address


@dataclass(frozen=True)
class Part:
    """Frames with start <= time < end in seconds from the beginning of the file; no ``end`` is the file's own.

    Raises :class:`OptionError` where there is no such part of any video.
    """

    start: float
    end: float | None

    def __post_init__(self) -> None:
        for name, seconds in (("start", self.start), ("end", self.end or 0.0)):
            if not math.isfinite(seconds) or seconds < 0:
                raise OptionError(f"{name} must be 0 or more seconds, not {seconds}")
        if self.end is not None and not self.end > self.start:
            raise OptionError(f"end ({self.end} s) must lie behind start ({self.start} s)")

    def ticks(self, time_base: Fraction, origin: Fraction) -> tuple[float, float]:
        """The same in ticks of a clock on which the file begins at ``origin`` seconds; -inf and inf where it is not
        bounded."""
        first, last = (
            math.ceil((Fraction(seconds) + origin) / time_base - Fraction(1, 1000)) if seconds else None
            for seconds in (self.start, self.end)
        )
        return -math.inf if first is None else first, math.inf if last is None else last

    def is_not_in(self, source: str, *, later_frames: bool) -> InputError:
        """What to tell of a file that has no frame of it; ``later_frames``: whether it has some behind it."""
        hint = " If the server answers no range requests, download the file first." if is_address(source) else ""
        if later_frames:
            return InputError(f"{source}: no frame from {self.start:g} s to {self.end:g} s. Give a later end.{hint}")
        if self.start > 0:
            return InputError(f"{source}: no frame from {self.start:g} s on. Give an earlier start.{hint}")
        return InputError(f"{source}: holds no frame that can be decoded. Check that the file is whole.{hint}")
