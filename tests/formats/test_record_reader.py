from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.formats import ImageResult, JsonlWriter, JsonWriter, quantize, read_record
from cpnpose.formats.record_reader import _Scanner

WRITERS = {"out.json": JsonWriter, "out.jsonl": JsonlWriter}


@pytest.fixture(params=list(WRITERS))
def record(request, tmp_path):
    """Writes frames to a record of either kind."""

    def write(header, frames):
        path = tmp_path / request.param
        with WRITERS[request.param](path, header, overwrite=True) as writer:
            for result in frames:
                writer.write(result)
        return path

    return write


def test_round_trip(record, header, clip, same_results):
    read_header, frames = read_record(record(header, clip))
    assert read_header == replace(header, model={**header.model, "input_size": [256, 192]})
    for read, written in zip(frames, clip, strict=True):
        same_results(read, written)
        assert read.frame.image.shape == (0, 0, 3)


def test_round_trip_of_everything(record, header, rich_clip, same_results):
    _, frames = read_record(record(header, rich_clip))
    for read, written in zip(frames, rich_clip, strict=True):
        same_results(read, written)


def test_poses_without_ids_stay_without(record, header, make_poses, make_result):
    _, frames = read_record(
        record(replace(header, extras=()), [make_result(0, make_poses(2)), make_result(1, make_poses(0))])
    )
    assert [result.poses.track_ids for result in frames] == [None, None]


def test_second_writing_changes_nothing(record, header, rich_clip):
    """What was read and is written again is the same text: tracking or converting twice adds no rounding."""
    path = record(header, rich_clip)
    first = path.read_bytes()
    _, frames = read_record(path)
    assert record(header, list(frames)).read_bytes() == first


def test_quantized_poses_are_those_that_come_back(record, header, clip):
    _, frames = read_record(record(header, clip))
    for read, written in zip(frames, clip, strict=True):
        stored = quantize(written.poses)
        for name, values in vars(stored).items():
            np.testing.assert_array_equal(getattr(read.poses, name), values, err_msg=name)
        again = quantize(stored)
        np.testing.assert_array_equal(again.keypoints_xy, stored.keypoints_xy)


def test_images_come_back_with_their_names(record, header, clip):
    images = replace(header, kind="images", size=None, fps=None)
    _, frames = read_record(record(images, [ImageResult(clip[0].frame, clip[0].poses, file="a.jpg", size=(3, 4))]))
    result = next(frames)
    assert isinstance(result, ImageResult)
    assert (result.file, result.size) == ("a.jpg", (3, 4))


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"sort_keys": True}])
def test_json_that_other_programs_wrote_anew(tmp_path, header, clip, same_results, options):
    path = tmp_path / "out.json"
    with JsonWriter(path, header) as writer:
        for result in clip:
            writer.write(result)
    path.write_text(json.dumps(json.loads(path.read_text()), **options))
    read_header, frames = read_record(path)
    assert read_header.fps == header.fps
    for read, written in zip(frames, clip, strict=True):
        same_results(read, written)


def test_scanner_takes_values_cut_at_any_place():
    """Numbers that go on in the next chunk are not read short."""

    class Drip:
        def __init__(self, text):
            self.left = text

        def read(self, _):
            character, self.left = self.left[:1], self.left[1:]
            return character

    scanner = _Scanner(Drip(' 123.5e1 , "a\\u00fcb" , [1, {"b": -20}]  , true'))
    values = []
    while scanner.peek():
        values.append(scanner.value())
        scanner.skip_comma("")
    assert values == [1235.0, "aüb", [1, {"b": -20}], True]


def test_torn_last_line_is_dropped(tmp_path, header, clip):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path, header) as writer:
        for result in clip:
            writer.write(result)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert len(list(read_record(path)[1])) == len(clip) - 1
    path.write_bytes(whole[:-1])  # an editor took the last line feed away
    assert len(list(read_record(path)[1])) == len(clip)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "", "not a whole JSON document"),
        ("a.json", "[]", "not a whole JSON document"),
        ("a.json", '{"frames": []}', "not a cpnpose record"),
        ("a.json", '{"schema": "cpnpose-record", "schema_version": "2.0"}', "schema version 2.0"),
        ("a.json", '{"schema": "cpnpose-record", "schema_version": "1.0"}', "damaged header"),
        ("a.jsonl", "", "empty record"),
        ("a.jsonl", "hello\nworld\n", "line 1"),
        ("a.jsonl", '{"schema": "other"}\n', "not a cpnpose record"),
        ("a.csv", "x", r"\.jsonl"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_record(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_record(tmp_path / "no.jsonl")


def test_truncated_json_gives_its_frames_and_then_says_so(tmp_path, header, clip):
    path = tmp_path / "out.json"
    with JsonWriter(path, header) as writer:
        for result in clip:
            writer.write(result)
    path.write_bytes(path.read_bytes()[:-500])
    _, frames = read_record(path)
    for _ in range(4):
        next(frames)
    with pytest.raises(InputError, match="not a whole JSON document"):
        next(frames)


def test_damaged_frame_is_named(tmp_path, header, clip):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path, header) as writer:
        writer.write(clip[0])
    path.write_text(path.read_text().replace('"pts":0,', ""))
    with pytest.raises(InputError, match=r"line 2.*pts"):
        list(read_record(path)[1])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"pts":0,', '"pts":Infinity,'),
        ('"time":0.0,', '"time":NaN,'),
        ('"track_id":1,', '"track_id":1000000000000000000000,'),
        ('"filled":[]', '"filled":[17]'),
        ('"flags":{"filled":[],"swapped":[]}', '"flags":[]'),
    ],
)
def test_values_that_cannot_be_are_a_damaged_frame(tmp_path, header, make_poses, make_result, old, new):
    path = tmp_path / "out.jsonl"
    poses = replace(make_poses([1]), flags=np.zeros((1, 17), np.uint8))
    with JsonlWriter(path, header) as writer:
        writer.write(make_result(0, poses))
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"line 2: damaged frame"):
        list(read_record(path)[1])


@pytest.mark.parametrize("name", ["model", "settings"])
def test_a_header_without_objects_is_damaged(tmp_path, header, name):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(header.to_dict() | {name: None}) + "\n")
    with pytest.raises(InputError, match="damaged header"):
        read_record(path)


def test_two_documents_in_one_file_are_not_read_as_the_first(tmp_path, header, clip):
    path = tmp_path / "out.json"
    with JsonWriter(path, header) as writer:
        writer.write(clip[0])
    path.write_text(2 * path.read_text())
    with pytest.raises(InputError, match="more follows its end"):
        list(read_record(path)[1])


@pytest.mark.parametrize(
    ("sound", "damaged", "message"),
    [('"height": 720', '"height": Infinity', "damaged header"), ('"pts":0', '"pts":Infinity', "line 2: damaged frame")],
)
def test_infinity_is_no_number_of_a_record(tmp_path, header, clip, sound, damaged, message):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path, header) as writer:
        writer.write(clip[0])
    text = path.read_text()
    assert sound in text
    path.write_text(text.replace(sound, damaged))
    with pytest.raises(InputError, match=message):
        list(read_record(path)[1])


def test_memory_does_not_grow_with_length(record, header, make_poses, make_result):
    poses = make_poses([1, 2, 3])

    def peak(count):
        tracemalloc.start()
        path = record(header, (make_result(index, poses) for index in range(count)))
        assert sum(1 for _ in read_record(path)[1]) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(1000) < peak(100) + 200_000  # the text of 900 frames is over 1 MB


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_record(tmp_path)
