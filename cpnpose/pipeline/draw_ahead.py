"""Drawing and converting the frames of a video beside their encoding."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from cpnpose.media.video import VideoWriter
from cpnpose.pipeline.queues import Background, map_in_order
from cpnpose.pose.types import ImageArray

T = TypeVar("T")
_AHEAD = 4
_DRAWERS = 2
"""Threads that draw: each waits for its turn with Python between two lines."""


@contextmanager
def draw_ahead(
    results: Generator[T, None, None],
    draw: Callable[[T], ImageArray],
    writer: VideoWriter,
    watch: Callable[[str, int, int], None] | None = None,
) -> Iterator[Iterator[tuple[T, Any]]]:
    """The results in order, each with its picture as ``writer.write`` takes it.

    ``results`` is iterated, and closed at the end, in a thread; pictures are drawn in two others and converted for the
    encoder in a fourth. The threads end with the context. ``watch``: see :class:`~cpnpose.pipeline.queues.Background`.
    """

    def drawn() -> Iterator[tuple[T, ImageArray]]:
        with closing(results):
            yield from map_in_order(lambda result: (result, draw(result)), results, workers=_DRAWERS, name="draw")

    with Background(drawn(), ahead=_AHEAD, name="draw", watch=watch) as pictures:
        encodable = ((result, writer.convert(image)) for result, image in pictures)
        with Background(encodable, ahead=_AHEAD, name="convert", watch=watch) as ready:
            yield ready
