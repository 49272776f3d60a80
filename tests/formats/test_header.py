from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.formats.header import Header, source_name, source_stem
from cpnpose.pose.types import VideoInfo


def test_video_header():
    info = VideoInfo(480, 640, Fraction(25), 100, 180, True, 4.0, "/home/me/in.mov")
    header = Header.for_video(info, model={"name": "m"}, settings={"score": 0.5})
    assert (header.source, header.size, header.fps, header.rotation) == ("in.mov", (480, 640), Fraction(25), 180)
    assert (header.duration_s, header.frame_count, header.kind) == (4.0, 100, "video")


def test_dictionary_and_back(header):
    plain = replace(header, model={"name": "m"})
    assert Header.from_dict(plain.to_dict(), "here") == plain
    bare = Header("pictures", kind="images")
    assert Header.from_dict(bare.to_dict(), "here") == bare


def test_values_become_plain_json(header):
    settings = {"rate": Fraction(1, 2), "none": float("inf"), "array": np.array([1.5, np.nan]), 3: (True, None)}
    assert replace(header, settings=settings).to_dict()["settings"] == {
        "rate": "1/2",
        "none": None,
        "array": [1.5, None],
        "3": [True, None],
    }


def test_differences_are_named(header):
    other = replace(header, settings={**header.settings, "score": 0.5, "new": 1})
    assert header.differences(other) == ["settings.score: 0.3 -> 0.5", "settings.new: null -> 1"]
    assert header.differences(header) == []


def test_later_minor_versions_are_read_and_later_major_ones_refused(header):
    document = header.to_dict()
    assert Header.from_dict({**document, "schema_version": "1.7", "new": 1, "extras": ["new"]}, "x").extras == ()
    with pytest.raises(InputError, match=r"2\.0"):
        Header.from_dict({**document, "schema_version": "2.0"}, "x")


def test_unknown_extras_are_a_mistake():
    with pytest.raises(ValueError, match="angels"):
        Header("a", extras=("angels",))


@pytest.mark.parametrize(
    ("source", "name", "stem"),
    [
        ("a/b/in.mp4", "in.mp4", "in"),
        ("pictures/", "pictures", "pictures"),
        ("rtsp://me:secret@cam:554/live.sdp?key=1", "rtsp://cam:554/live.sdp", "live"),
        ("0", "0", "0"),
        ("a:b*c.mp4", "a:b*c.mp4", "a_b_c"),
    ],
)
def test_names_of_sources(source, name, stem):
    assert source_name(source) == name
    assert source_stem(Header(name)) == stem
