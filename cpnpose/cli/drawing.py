"""From the options of the command line to a function that draws a result."""

from __future__ import annotations

from typing import Protocol

from cpnpose.cli.pipeline_arguments import BackgroundChoice
from cpnpose.media.draw import DrawStyle, draw_poses
from cpnpose.pose.types import FrameResult, ImageArray


class Draw(Protocol):
    """Draws a result."""

    def __call__(self, result: FrameResult, in_place: bool = False) -> ImageArray:
        """The frame's image with its people: a copy, unless it may be drawn on."""
        ...


def make_drawer(
    *, threshold: float | None, boxes: bool, ids: bool, background: BackgroundChoice, blur_faces: bool
) -> Draw:
    """A function that draws a frame's people.

    Args:
        threshold: of the keypoint scores; None leaves it to the drawing.
        boxes, ids, background, blur_faces: see :class:`~cpnpose.media.draw.DrawStyle`.
    """
    style = DrawStyle(
        threshold=DrawStyle.threshold if threshold is None else threshold,
        draw_boxes=boxes,
        draw_ids=ids,
        background=background.value,
        blur_faces=blur_faces,
    )

    def draw(result: FrameResult, in_place: bool = False) -> ImageArray:
        return draw_poses(result.frame.image, result.poses, style, in_place=in_place)

    return draw
