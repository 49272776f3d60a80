from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cpnpose.pipeline.segments import chunks_of
from cpnpose.pose.types import Frame

MakeFrames = Callable[..., list[Frame]]


def lengths(frames: list[Frame], **limits: int) -> list[list[int]]:
    """The segments' lengths of each chunk."""
    return [[len(segment) for segment in chunk.segments] for chunk in chunks_of(frames, **limits)]


def test_a_chunk_holds_no_more_frames_than_asked(make_frames: MakeFrames) -> None:
    frames = make_frames(8)
    many = 10**9
    assert lengths(frames, detect_every=1, most_frames=3, most_bytes=many) == [[1, 1, 1], [1, 1, 1], [1, 1]]
    assert lengths(frames, detect_every=3, most_frames=7, most_bytes=many) == [[3, 3], [2]]
    assert lengths(frames, detect_every=3, most_frames=1, most_bytes=many) == [[3], [3], [2]]


def test_a_chunk_holds_no_more_bytes_than_asked(make_frames: MakeFrames) -> None:
    """Large pictures go in small chunks, whatever the number of frames allows; one segment goes always."""
    frames = make_frames(8)
    size = frames[0].image.nbytes
    assert lengths(frames, detect_every=1, most_frames=100, most_bytes=3 * size) == [[1, 1, 1], [1, 1, 1], [1, 1]]
    assert lengths(frames, detect_every=1, most_frames=100, most_bytes=3 * size - 1) == [[1, 1]] * 4
    assert lengths(frames, detect_every=3, most_frames=100, most_bytes=5 * size) == [[3], [3], [2]]
    assert lengths(frames, detect_every=1, most_frames=100, most_bytes=1) == [[1]] * 8


def test_frames_before_an_error_are_worked_on_first(make_frames: MakeFrames) -> None:
    def damaged() -> Iterator[Frame]:
        yield from make_frames(5)
        raise OSError("disk gone")

    got: list[int] = []
    with pytest.raises(OSError, match="disk gone"):
        got.extend(chunk.frames[-1].index for chunk in chunks_of(damaged(), 1, most_frames=3, most_bytes=10**9))
    assert got == [2, 4]
