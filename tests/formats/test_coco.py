from __future__ import annotations

import json

import numpy as np
import pytest

from cpnpose.errors import OutputError
from cpnpose.formats import ImageResult
from cpnpose.formats.coco import write_coco


def test_pycocotools_reads_what_was_written(tmp_path, header, clip):
    coco = pytest.importorskip("pycocotools.coco")
    path = tmp_path / "results.json"
    write_coco(header, clip, path)
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": result.frame.index} for result in clip],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [],
    }
    truth.createIndex()
    results = truth.loadRes(str(path))
    for result in clip:
        annotations = results.loadAnns(results.getAnnIds(imgIds=[result.frame.index]))
        assert len(annotations) == len(result.poses)
        for row, annotation in enumerate(annotations):
            assert annotation["category_id"] == 1
            keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
            np.testing.assert_allclose(keypoints[:, :2], result.poses.keypoints_xy[row], atol=5.1e-3)
            np.testing.assert_allclose(keypoints[:, 2], result.poses.keypoint_scores[row], atol=5.1e-5)
            assert annotation["score"] == pytest.approx(float(result.poses.scores[row]), abs=5.1e-5)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["val2017/000000000139.jpg", "val2017/7.png"], [139, 7]),
        (["b.jpg", "0.jpg"], [0, 2]),
        (["139.jpg", "b.jpg"], [0, 2]),
        (["day1/5.jpg", "day2/005.jpg"], [0, 2]),
        (["5.jpg", "5.png"], [0, 2]),
    ],
)
def test_image_ids_are_the_numbers_of_the_names_or_positions_and_never_meet(tmp_path, header, clip, names, ids):
    frames = [ImageResult(clip[at].frame, clip[at].poses, file=name) for at, name in zip([0, 2], names, strict=True)]
    write_coco(header, frames, tmp_path / "results.json")
    entries = json.loads((tmp_path / "results.json").read_text())
    assert [entry["image_id"] for entry in entries] == [ids[0], ids[0], ids[1], ids[1]]
    assert entries[2]["keypoints"][0] == pytest.approx(float(clip[2].poses.keypoints_xy[0, 0, 0]), abs=5.1e-3)
    assert list(entries[0]) == ["image_id", "category_id", "keypoints", "score"]


def test_an_image_without_people_counts_among_the_names(tmp_path, header, clip):
    """Its name is none, so nobody's number is taken, whoever is in the pictures."""
    frames = [ImageResult(clip[at].frame, clip[at].poses, file=name) for at, name in enumerate(["9.jpg", "b.jpg"])]
    write_coco(header, frames, tmp_path / "results.json")
    assert {entry["image_id"] for entry in json.loads((tmp_path / "results.json").read_text())} == {0}


def test_nobody_is_an_empty_list(tmp_path, header, clip):
    write_coco(header, clip[1:2], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_keypoints_that_are_no_numbers_become_zero(tmp_path, header, rich_clip):
    write_coco(header, rich_clip, tmp_path / "results.json")
    entries = json.loads((tmp_path / "results.json").read_text())
    assert entries[1]["keypoints"][12:15] == [0, 0, 0]


def test_existing_file(tmp_path, header, clip):
    path = tmp_path / "results.json"
    path.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        write_coco(header, clip, path)
    assert path.read_text() == "precious"
    write_coco(header, clip, path, overwrite=True)
    assert len(json.loads(path.read_text())) == 7
