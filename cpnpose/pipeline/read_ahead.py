"""Reading a video in two threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cpnpose.media.video import VideoReader
from cpnpose.pipeline.queues import Background
from cpnpose.pose.types import Frame

_AHEAD = 4


@contextmanager
def read_ahead(reader: VideoReader) -> Iterator[Iterator[Frame]]:
    """The frames of a reader, in order: they are decoded in a thread of their own, and only converted to RGB in the
    one that iterates. The thread ends with the context."""
    with Background(reader.decoded(), ahead=_AHEAD, name="decode") as decoded:
        yield map(reader.frame, decoded)
