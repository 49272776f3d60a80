"""The types that travel through the pipeline: frozen dataclasses of arrays.

Coordinates, everywhere: points are (x, y) in pixels of the upright image. The origin is the upper left *corner* of the
image, x runs right, y down, so the centre of the upper left pixel is (0.5, 0.5) and an image of width W spans [0, W].
Boxes are (x1, y1, x2, y2) in the same frame. Sizes are (height, width). Images are uint8 RGB (H, W, 3).
A frame without people has N = 0 rows everywhere; that is a normal value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cpnpose.errors import InputError
from cpnpose.pose.keypoints import NUM_KEYPOINTS

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
ImageArray = npt.NDArray[np.uint8]
Picture: TypeAlias = "ImageArray | Tensor"
"""uint8 RGB, as an array or as a tensor on the network's device."""

FARTHEST = 1e9
"""Coordinates beyond it are no pixels of any image; far beyond, float32 cannot hold the crop."""

FLAG_FILLED = 1
"""Bit of :attr:`Poses.flags`: the keypoint was interpolated over a gap."""
FLAG_SWAPPED = 2
"""Bit of :attr:`Poses.flags`: left and right were exchanged by the swap repair."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its crops. Belongs to a weights file and travels in its metadata."""

    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """RGB, 0 to 255: subtracted from the pixels, and the colour of what lies outside the image."""
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """RGB, 0 to 255: the pixels are divided by it after the mean is subtracted."""
    box_padding: tuple[float, float] = (0.10, 0.15)
    """Share of its width and height by which a box is widened on each side before it grows to the crop's shape."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read. Height and width are those of the upright picture
    with square pixels (rotation and sample aspect ratio applied)."""

    height: int
    width: int
    fps: Fraction | None
    """Average frame rate, or None where the container does not say."""
    frame_count: int | None
    """Number of frames by the container's own word, or None."""
    rotation: int
    """Clockwise degrees by which the stored picture was turned to be upright: 0, 90, 180 or 270."""
    has_audio: bool
    duration_s: float | None = None
    """Length in seconds by the container's word, or None."""
    source: str = ""
    """The path or address as the user gave it."""
    live: bool = False
    """Whether it is a stream that goes on without end and cannot be read a second time from its beginning."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    index: int
    """Position in the input, counted from 0 over all decoded frames (also those skipped by ``--every``)."""
    pts: int
    """Presentation timestamp in ticks of ``time_base``."""
    time_base: Fraction
    time_s: float
    """``pts * time_base`` in seconds."""
    image: ImageArray
    """(H, W, 3) uint8 RGB, upright, square pixels."""
    duration: int | None = None
    """Ticks for which it is shown, where the input says so."""


@dataclass(frozen=True)
class Detections:
    """People found in one image, best first."""

    boxes_xyxy: FloatArray
    """(N, 4) float32, image pixels."""
    scores: FloatArray
    """(N,) float32 in [0, 1]."""

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> Detections:
        """No people."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32))

    def checked(self) -> Detections:
        """The same as float32 arrays.

        Raises:
            InputError: boxes are not (N, 4), scores not (N,), or one of the numbers is not finite or none of pixels.
        """
        boxes, scores = np.asarray(self.boxes_xyxy, np.float32), np.asarray(self.scores, np.float32)
        if not boxes.size:
            boxes = boxes.reshape(0, 4)
        if scores.ndim != 1 or boxes.shape != (len(scores), 4):
            raise InputError(f"boxes {boxes.shape} with scores {scores.shape}; give boxes (N, 4) with scores (N,)")
        if not ((np.abs(boxes) < FARTHEST).all() and np.isfinite(scores).all()):
            raise InputError("boxes or scores are not finite, or far beyond any image; leave those people out")
        return Detections(boxes, scores)


def check_image(image: ImageArray) -> None:
    """Raises:
    InputError: it is no array (H, W, 3) of uint8, or has no pixels."""
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image is a {type(image).__name__}; give a NumPy array (H, W, 3) of uint8, RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an image is {image.dtype} of shape {image.shape}; give uint8 of (H, W, 3), RGB, H and W > 0")


@dataclass(frozen=True)
class PersonCrops:
    """Crops of people, ready for the network; rows may come from several frames."""

    pixels: Picture
    """(N, h, w, 3) uint8 RGB at the network's input size."""
    affines: FloatArray
    """(N, 2, 3) float32: maps image points to crop points, ``crop = A @ [x, y, 1]``, both corner-origin."""
    frame_indices: IntArray
    """(N,) int64: position in the batch of images that was given to the cropper."""
    boxes_xyxy: FloatArray
    """(N, 4) float32: the detector's boxes, image pixels."""
    scores: FloatArray
    """(N,) float32: the detector's scores."""

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Poses:
    """Poses of the people of one image."""

    keypoints_xy: FloatArray
    """(N, 17, 2) float32, image pixels. Never zeroed or clipped by a threshold."""
    keypoint_scores: FloatArray
    """(N, 17) float32: the heatmap's largest value, divided by 255, plus 0.5 (the published decoding: its value at the
    keypoint)."""
    scores: FloatArray
    """(N,) float32: box score times the mean of the keypoint scores (the published instance score)."""
    boxes_xyxy: FloatArray
    """(N, 4) float32, image pixels."""
    box_scores: FloatArray
    """(N,) float32: the detector's score, 1 where the box was given."""
    track_ids: IntArray | None = None
    """(N,) int64 identities from 1, or None before tracking. -1: not (yet) a confirmed track."""
    uncertainty_px: FloatArray | None = None
    """(N, 17) float32: distance in image pixels between the pose of the crop and that of its mirror image; None
    without flip test."""
    raw_keypoints_xy: FloatArray | None = None
    """(N, 17, 2) float32: keypoints before smoothing, filling or swap repair; None where nothing was changed."""
    flags: npt.NDArray[np.uint8] | None = None
    """(N, 17) uint8 bit field of FLAG_FILLED and FLAG_SWAPPED; None means all 0."""

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> Poses:
        """No people."""
        return Poses(
            keypoints_xy=np.zeros((0, NUM_KEYPOINTS, 2), np.float32),
            keypoint_scores=np.zeros((0, NUM_KEYPOINTS), np.float32),
            scores=np.zeros((0,), np.float32),
            boxes_xyxy=np.zeros((0, 4), np.float32),
            box_scores=np.zeros((0,), np.float32),
        )

    def select(self, rows: npt.NDArray[Any] | Sequence[int]) -> Poses:
        """The people of ``rows`` (an index array (M,) or a boolean mask (N,)), in that order."""
        chosen = np.asarray(rows)
        if chosen.dtype != np.bool_:
            chosen = chosen.astype(np.int64)
        fields: dict[str, Any] = {name: value if value is None else value[chosen] for name, value in vars(self).items()}
        return Poses(**fields)


@dataclass(frozen=True)
class FrameResult:
    """One frame and the people in it. ``frame.image`` has shape (0, 0, 3) where only data was kept."""

    frame: Frame
    poses: Poses
