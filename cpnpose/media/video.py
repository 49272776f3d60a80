"""Videos in and out. PyAV is used in this room only."""

from __future__ import annotations

from cpnpose.media.video_reader import VideoReader
from cpnpose.media.video_writer import VideoWriter

__all__ = ["VideoReader", "VideoWriter"]
