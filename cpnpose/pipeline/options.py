"""The pipeline's options: flat dataclasses, mirrored by the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpnpose.errors import OptionError

Smoothing = Literal["off", "one-euro"]
MOST_PEOPLE = 100
"""Per image, where nobody chooses another number."""
_MOST_CARRIED = 60  # frames of a segment are held in memory together


@dataclass(frozen=True)
class ModelOptions:
    """Which networks look at the pictures, and on what they run."""

    weights: str = "default"
    """Pose network: a name of the manifest or a weights file."""
    detector: str = "default"
    """``default``, one of torchvision's official detectors by its name, or ``none`` for the whole image as one box."""
    detector_weights: Path | None = None
    """Weights file of the detector in the place of its own."""
    detector_size: tuple[int, int] | None = None
    """(height, width) that has about as many pixels as frames are brought to for the detector, whatever their shape:
    more find smaller people and take longer. None takes what the detector's weights name."""
    boxes: Path | None = None
    """COCO detections file whose boxes are used in the place of a detector."""
    score: float | None = None
    """People below this detection score are left out; None takes what the detector's weights name."""
    nms: float | None = None
    """Of two boxes that overlap by more than this IoU, the better one stays; None as above."""
    max_people: int | None = None
    """Per image, the best ones; None is :data:`MOST_PEOPLE`."""
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    """Most crops in one go through the network; None leaves the choice to the device."""
    flip: bool = False
    """Average with the mirrored crop: about twice the work, more accurate, and tells the uncertainty in pixels."""
    fast: bool = False
    """GlobalNet's finest map alone: less work, less accurate."""

    def __post_init__(self) -> None:
        for name, value in (("score", self.score), ("nms", self.nms)):
            if value is not None and not 0 <= value <= 1:
                raise OptionError(f"--{name} {value}: give a number from 0 to 1")
        if self.max_people is not None and self.max_people < 1:
            raise OptionError(f"--max-people {self.max_people}: give a number from 1")
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"--batch {self.batch}: give a number from 1")
        if self.boxes is not None and (self.detector != "default" or self.detector_weights is not None):
            raise OptionError("--boxes takes the place of a detector; leave --detector and --detector-weights out")
        if self.detector_size is not None and min(self.detector_size) < 1:
            raise OptionError(f"--detector-size {self.detector_size}: give a height and a width from 1")
        if self.boxes is not None:
            for name in ("nms", "detector_size"):
                if getattr(self, name) is not None:
                    option = name.replace("_", "-")
                    raise OptionError(f"--{option} has no effect: the boxes of --boxes are all taken; leave it out")
        if self.detector == "none":
            for name in ("score", "nms", "max_people", "detector_weights", "detector_size"):
                if getattr(self, name) is not None:
                    raise OptionError(f"--{name.replace('_', '-')} has no effect with --detector none; leave it out")

    @property
    def most_people(self) -> int:
        """What ``max_people`` comes to."""
        return MOST_PEOPLE if self.max_people is None else self.max_people


@dataclass(frozen=True)
class StreamOptions:
    """How frames become poses over time."""

    detect_every: int = 1
    """Look for people in every N-th frame; in between, boxes come from the last keypoints."""
    chunk_frames: int | None = None
    """Frames that are worked on together; None leaves the choice to the device. 1 for the least delay."""
    workers: int | None = None
    """Chunks that are worked on at the same time; None leaves the choice to the device."""
    track: bool = True
    """Give people identities."""
    track_memory: float = 2.5
    """Seconds for which somebody who has gone is remembered."""
    confident_score: float | None = None
    """Detection score from which somebody new gets an identity; None takes the detector's threshold."""
    drop_below: float = 0.0
    """People below this detection score stay only where they continue somebody's track."""
    smooth: Smoothing | None = None
    """Filter keypoints over time, the raw ones are kept beside. None: one-euro where people are tracked."""

    def __post_init__(self) -> None:
        if not 1 <= self.detect_every <= _MOST_CARRIED:
            raise OptionError(f"--detect-every {self.detect_every}: give a number from 1 to {_MOST_CARRIED}")
        if self.track_memory < 0:
            raise OptionError(f"--track-memory {self.track_memory}: give seconds from 0")
        if self.smooth not in (None, "off", "one-euro"):
            raise OptionError(f"--smooth {self.smooth}: use off or one-euro")
        if self.smooth == "one-euro" and not self.track:
            raise OptionError("--smooth follows each person and needs identities; leave --no-track out")

    @property
    def smoothing(self) -> Smoothing:
        """What ``smooth`` comes to."""
        return self.smooth or ("one-euro" if self.track else "off")
