"""Drawing skeletons, boxes and ids on images."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from cpnpose.errors import OptionError
from cpnpose.media.blur import blur_background, blur_heads
from cpnpose.media.labels import place_labels
from cpnpose.pose.keypoints import NUM_KEYPOINTS, SKELETON
from cpnpose.pose.types import ImageArray, IntArray, Poses

Background = Literal["keep", "black", "blur"]

LEFT_COLOR = (0, 170, 255)
"""RGB of joints and bones on the person's own left."""
RIGHT_COLOR = (255, 120, 20)
"""RGB of joints and bones on the person's own right."""
MIDDLE_COLOR = (245, 240, 90)
"""RGB of the nose and of the bones that join left and right."""
OUTLINE_COLOR = (20, 20, 20)

_COLORS = (MIDDLE_COLOR, LEFT_COLOR, RIGHT_COLOR)
_BONES = np.array(SKELETON, dtype=np.int64)
_SIDE = np.array([0] + [1, 2] * ((NUM_KEYPOINTS - 1) // 2), dtype=np.int64)
"""Per keypoint: 0 middle, 1 left, 2 right."""
_A, _B = _SIDE[_BONES[:, 0]], _SIDE[_BONES[:, 1]]
_BONE_SIDE = np.where((_A == _B) | (_B == 0), _A, np.where(_A == 0, _B, 0))
_SHIFT = 4
"""Points are given to OpenCV in sixteenths of a pixel."""
_FAR = 1 << 20
_NO_OUTLINE = 100
"""Pixels of the longer side of a box below which an outline would leave nothing of the colours."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class DrawStyle:
    """What is drawn.

    threshold: keypoints with a lower score are not drawn. The score is the published one, the heatmap's value over 255
    plus 0.5: about 0.5 where the network sees nothing, 1.3 to 1.5 where it is sure. The default of 0.6 leaves out what
    reaches less than a tenth of a full response. draw_boxes: boxes of the people. draw_ids: numbers of their tracks.
    background: the picture as it is, black, or blurred outside the people. blur_faces: make heads unrecognisable.
    draw_unnamed: skeletons and boxes also of those to whom the tracker gives no id (yet): most of them are no people.
    """

    threshold: float = 0.6
    draw_boxes: bool = False
    draw_ids: bool = False
    background: Background = "keep"
    blur_faces: bool = False
    draw_unnamed: bool = False

    def __post_init__(self) -> None:
        if self.background not in get_args(Background):
            raise OptionError(f"background is keep, black or blur, not {self.background}")


def line_widths(poses: Poses) -> IntArray:
    """(N,) int64: width in pixels of each person's bones, by the longer side of the box: 2 at 250 pixels, 8 at 1000."""
    return np.asarray(np.clip(np.rint(_longer_sides(poses) * 0.008), 1, 16), dtype=np.int64)


def joint_sizes(poses: Poses) -> IntArray:
    """(N,) int64: diameter in pixels of each person's joints: twice the bones' and 1, but 2 for sides up to 100."""
    return np.asarray(np.clip(np.rint(_longer_sides(poses) * 0.025), 2, 2 * line_widths(poses) + 1), dtype=np.int64)


def _longer_sides(poses: Poses) -> npt.NDArray[np.float32]:
    sides = poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2]
    longer = sides.max(axis=1, initial=0.0)
    return np.where(np.isnan(longer), np.float32(0.0), longer)


def draw_poses(
    image: ImageArray, poses: Poses, style: DrawStyle | None = None, *, in_place: bool = False
) -> ImageArray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with the people of ``poses`` drawn on it; the image stays as it is.

    ``in_place`` allows to draw on the image itself, which saves half of the time; one whose memory belongs to somebody
    else, as a decoder's, is copied all the same.

    People far away (small boxes) are drawn first, so that those in front lie on top.
    """
    style = style or DrawStyle()
    if style.background == "black":
        canvas = np.zeros(image.shape, dtype=np.uint8)
    elif style.background == "blur":
        canvas = blur_background(image, poses)
    else:
        canvas = image if in_place and image.flags.owndata else image.copy()
    if len(poses) == 0:
        return canvas
    if style.blur_faces and style.background != "black":
        blur_heads(canvas, poses)
    if poses.track_ids is not None and not style.draw_unnamed:
        poses = poses.select(np.flatnonzero(poses.track_ids > 0))
    widths = line_widths(poses)
    if style.draw_boxes:
        _draw_boxes(canvas, poses, widths)
    points = _to_fixed_point(poses.keypoints_xy)
    seen = (poses.keypoint_scores >= style.threshold) & np.isfinite(poses.keypoints_xy).all(axis=2)
    outlines = np.where(_longer_sides(poses) < _NO_OUTLINE, 0, 2)
    strokes = list(zip(widths.tolist(), joint_sizes(poses).tolist(), outlines.tolist(), strict=True))
    for stroke in sorted(set(strokes)):
        alike = [person for person, own in enumerate(strokes) if own == stroke]
        _draw_skeletons(canvas, points[alike], seen[alike], *stroke)
    if style.draw_ids and poses.track_ids is not None:
        _draw_ids(canvas, poses, seen)
    return canvas


def _to_fixed_point(xy: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Corner-origin pixels to OpenCV's sixteenths with the origin in the first pixel's centre."""
    scaled = np.rint((xy.astype(np.float64) - 0.5) * (1 << _SHIFT))
    scaled[np.isnan(scaled)] = 0.0
    return np.clip(scaled, -_FAR, _FAR).astype(np.int32)


def _draw_skeletons(
    canvas: ImageArray, points: npt.NDArray[np.int32], seen: npt.NDArray[np.bool_], bone: int, joint: int, outline: int
) -> None:
    """People (n, 17, 2) of one size: a dark outline under everything, bones by side, then joints by side."""
    both = seen[:, _BONES[:, 0]] & seen[:, _BONES[:, 1]]
    bones = points[:, _BONES]
    # A line without length and with round ends is a disc.
    joints = np.repeat(points[:, :, None], 2, axis=2)
    for lines, drawn, sides, thick in ((bones, both, _BONE_SIDE, bone), (joints, seen, _SIDE, joint)):
        ends, colors = lines[drawn], sides[drawn.nonzero()[1]]
        if outline:
            _draw_lines(canvas, ends, OUTLINE_COLOR, thick + outline)
        for side, color in enumerate(_COLORS):
            _draw_lines(canvas, ends[colors == side], color, thick)


def _draw_lines(canvas: ImageArray, ends: npt.NDArray[np.int32], color: tuple[int, int, int], width: int) -> None:
    """Lines (M, 2, 2) in fixed point, all at once."""
    if len(ends):
        cv2.polylines(canvas, list(ends), False, color, width, cv2.LINE_AA, _SHIFT)


def id_color(track_id: int) -> tuple[int, int, int]:
    """RGB that stays with an id; neighbouring ids get hues far apart."""
    if track_id < 1:
        return (200, 200, 200)
    red, green, blue = colorsys.hsv_to_rgb(track_id * 0.61803398875 % 1.0, 0.75, 1.0)
    return (int(red * 255), int(green * 255), int(blue * 255))


def _ids(poses: Poses) -> list[int]:
    return [0] * len(poses) if poses.track_ids is None else [int(i) for i in poses.track_ids]


def _draw_boxes(canvas: ImageArray, poses: Poses, widths: IntArray) -> None:
    corners = poses.boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    usable = np.asarray(np.isfinite(corners).all(axis=(1, 2)))
    for polygon, track_id, width, draw in zip(_to_fixed_point(corners), _ids(poses), widths, usable, strict=True):
        if draw:
            cv2.polylines(canvas, [polygon], True, id_color(track_id), max(1, int(width) // 2), cv2.LINE_AA, _SHIFT)


def _draw_ids(canvas: ImageArray, poses: Poses, seen: npt.NDArray[np.bool_]) -> None:
    named = np.isfinite(poses.boxes_xyxy).all(axis=1) & (np.array(_ids(poses)) > 0)
    poses, seen = poses.select(np.flatnonzero(named)), seen[named]
    texts = [str(track_id) for track_id in _ids(poses)]
    fonts = [(0.35 + 0.09 * width, max(1, width // 2)) for width in line_widths(poses).tolist()]
    measured = [cv2.getTextSize(text, _FONT, *font) for text, font in zip(texts, fonts, strict=True)]
    sizes = [(width + 4, height + below + 2) for (width, height), below in measured]
    corners = place_labels(np.array(sizes, dtype=np.int64).reshape(-1, 2), poses, seen, canvas.shape[:2])
    for (x, y), (width, height), (_, below), text, font in zip(
        corners.tolist(), sizes, measured, texts, fonts, strict=True
    ):
        cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), id_color(int(text)), -1)
        origin = (x + 2, y + height - below)
        cv2.putText(canvas, text, origin, _FONT, font[0], OUTLINE_COLOR, font[1], cv2.LINE_AA)
