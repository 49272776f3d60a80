"""Multi-person pose in video with the Cascaded Pyramid Network.

    from cpnpose import PoseEstimator

    for result in PoseEstimator().video("in.mp4"):
        print(result.frame.time_s, result.poses.keypoints_xy)

The names below are imported when they are first used, so that ``import cpnpose`` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cpnpose.api import PoseEstimator
    from cpnpose.errors import CpnposeError
    from cpnpose.formats import read_record
    from cpnpose.media.video import VideoReader, VideoWriter
    from cpnpose.pipeline.options import ModelOptions, StreamOptions
    from cpnpose.pose.types import Detections, Frame, FrameResult, Poses

_HOMES = {
    "PoseEstimator": "cpnpose.api",
    "CpnposeError": "cpnpose.errors",
    "read_record": "cpnpose.formats",
    "VideoReader": "cpnpose.media.video",
    "VideoWriter": "cpnpose.media.video",
    "ModelOptions": "cpnpose.pipeline.options",
    "StreamOptions": "cpnpose.pipeline.options",
    "Detections": "cpnpose.pose.types",
    "Frame": "cpnpose.pose.types",
    "FrameResult": "cpnpose.pose.types",
    "Poses": "cpnpose.pose.types",
}

__all__ = [
    "CpnposeError",
    "Detections",
    "Frame",
    "FrameResult",
    "ModelOptions",
    "PoseEstimator",
    "Poses",
    "StreamOptions",
    "VideoReader",
    "VideoWriter",
    "__version__",
    "read_record",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cpnpose' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
