from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from cpnpose.errors import OutputError
from cpnpose.formats import ImageResult, JsonWriter
from cpnpose.formats.frame_record import frame_text
from cpnpose.formats.header import SCHEMA_FILE


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def strict_json(path: Path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_document_holds_header_and_every_frame(tmp_path, header, clip, validator):
    path = tmp_path / "out.json"
    with JsonWriter(path, header) as writer:
        for result in clip:
            writer.write(result)
            assert not path.exists()
    document = strict_json(path)
    validator.validate(document)
    assert document["source"] == {
        "kind": "video",
        "file": "clip.mp4",
        "height": 720,
        "width": 1280,
        "fps": "30000/1001",
        "fps_value": 29.97003,
        "rotation": 90,
        "duration": 1.25,
        "frame_count": 5,
    }
    assert document["model"]["input_size"] == [256, 192]
    assert document["settings"]["score"] == 0.3
    assert document["keypoint_names"][0] == "nose"
    assert [15, 13] in document["skeleton"]
    assert "(0.5, 0.5)" in document["coordinates"]
    assert [frame["index"] for frame in document["frames"]] == [0, 1, 2, 3, 4]
    assert [len(frame["people"]) for frame in document["frames"]] == [2, 0, 2, 1, 2]
    assert document["frames"][2]["pts"] == 2002
    assert document["frames"][2]["time"] == pytest.approx(2002 / 30000, abs=1e-6)
    assert document["frames_written"] == 5
    assert document["complete"] is True
    assert [person["track_id"] for person in document["frames"][2]["people"]] == [3, None]
    person, poses = document["frames"][0]["people"][1], clip[0].poses
    expected = np.concatenate([poses.keypoints_xy[1], poses.keypoint_scores[1][:, None]], axis=1)
    np.testing.assert_allclose(person["keypoints"], expected, atol=5.1e-3)
    np.testing.assert_allclose(person["box"], poses.boxes_xyxy[1], atol=5.1e-3)
    assert person["score"] == pytest.approx(float(poses.scores[1]), abs=5.1e-5)
    assert person["box_score"] == pytest.approx(float(poses.box_scores[1]), abs=5.1e-5)


def test_optional_fields_and_numbers_that_are_none(tmp_path, header, rich_clip, validator):
    path = tmp_path / "out.json"
    with JsonWriter(path, replace(header, model={"ap": float("nan")}, settings={"path": Path("a")})) as writer:
        for result in rich_clip:
            writer.write(result)
    document = strict_json(path)
    validator.validate(document)
    assert document["model"] == {"ap": None}
    assert document["settings"] == {"path": "a"}
    person = document["frames"][0]["people"][1]
    assert person["keypoints"][4] == [None, None, None]
    assert None not in person["keypoints"][3]
    flags = rich_clip[0].poses.flags[1]
    assert person["flags"] == {
        "filled": np.flatnonzero(flags & 1).tolist(),
        "swapped": np.flatnonzero(flags & 2).tolist(),
    }
    np.testing.assert_allclose(person["raw_keypoints"], rich_clip[0].poses.raw_keypoints_xy[1], atol=5.1e-3)
    np.testing.assert_allclose(person["uncertainty_px"], rich_clip[0].poses.uncertainty_px[1], atol=5.1e-3)


def test_angles_are_added_on_request(tmp_path, header, clip, validator):
    angles = pytest.importorskip("cpnpose.pose.angles")
    path = tmp_path / "out.json"
    with JsonWriter(path, replace(header, extras=("track_ids", "angles"))) as writer:
        writer.write(clip[0])
    document = strict_json(path)
    validator.validate(document)
    expected = angles.joint_angles(clip[0].poses.keypoints_xy, clip[0].poses.keypoint_scores)
    for person, row in zip(document["frames"][0]["people"], expected, strict=True):
        assert list(person["angles"]) == list(angles.ANGLE_NAMES)
        for value, degrees in zip(person["angles"].values(), row, strict=True):
            assert (value is None) == bool(np.isnan(degrees))
            assert value is None or value == pytest.approx(float(degrees), abs=5.1e-3)


def test_images_carry_their_file_and_size(tmp_path, header, clip, validator):
    path = tmp_path / "out.json"
    images = replace(header, kind="images", size=None, fps=None)
    frame = replace(clip[0].frame, image=np.zeros((4, 6, 3), np.uint8))
    with JsonWriter(path, images) as writer:
        writer.write(replace(clip[0], frame=frame), file="a/b.jpg")
        writer.write(ImageResult(clip[1].frame, clip[1].poses, file="ü.png", size=(10, 20)))
    document = strict_json(path)
    validator.validate(document)
    assert [(entry["file"], entry["size"]) for entry in document["frames"]] == [
        ("a/b.jpg", [4, 6]),
        ("ü.png", [10, 20]),
    ]


def test_no_frames_is_a_valid_document(tmp_path, header, validator):
    with JsonWriter(tmp_path / "out.json", header):
        pass
    document = strict_json(tmp_path / "out.json")
    validator.validate(document)
    assert document["frames"] == []


def test_interruption_leaves_a_valid_document_up_to_there(tmp_path, header, clip, validator):
    path = tmp_path / "out.json"

    def run():
        with JsonWriter(path, header) as writer:
            writer.write(clip[0])
            writer._file.stream.write(b',\n{"index":1,"pt')  # Ctrl-C came in the middle of a write
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    document = strict_json(path)
    validator.validate(document)
    assert len(document["frames"]) == document["frames_written"] == 1
    assert document["complete"] is False


def test_error_leaves_nothing(tmp_path, header, clip):
    def run():
        with JsonWriter(tmp_path / "out.json", header) as writer:
            writer.write(clip[0])
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run()
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_kept_unless_overwritten(tmp_path, header, clip):
    path = tmp_path / "out.json"
    path.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        JsonWriter(path, header)
    assert path.read_text() == "precious"
    with JsonWriter(path, header, overwrite=True) as writer:
        writer.write(clip[0])
        assert path.read_text() == "precious"
    assert strict_json(path)["frames_written"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_crowd_is_written_quickly(header, make_poses, make_result):
    result = make_result(0, make_poses(list(range(1, 101))))
    seconds = []
    for _ in range(10):
        start = time.process_time()
        frame_text(result, header)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.03  # the best, because other programs slow the others down
