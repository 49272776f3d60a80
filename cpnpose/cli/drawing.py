"""From the options of the command line to a function that draws a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cpnpose.pose.types import FrameResult, ImageArray


def drawer(style: Any) -> Callable[[FrameResult], ImageArray]:
    """A function that draws a frame's people into a copy of its image."""
    try:
        from cpnpose.media.draw import draw_poses
    except ImportError:
        return lambda result: result.frame.image
    return lambda result: draw_poses(result.frame.image, result.poses, style)
