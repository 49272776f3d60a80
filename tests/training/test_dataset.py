from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cpnpose.errors import CpnposeError, InputError, OutputError, TrainingError
from cpnpose.pose.types import Preprocessing
from cpnpose.training.annotations import read_people
from cpnpose.training.dataset import MARGIN, batch_of, build_cache, cache_size, epoch_order, steps

SIZE = (64, 64)


def edited(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = json.loads(source.read_text())
    change(content)
    target.write_text(json.dumps(content))
    return target


def test_people_are_read_as_they_are_written(drawn: Any) -> None:
    records = read_people([drawn.annotations], drawn.images)
    written = json.loads(drawn.annotations.read_text())["annotations"]
    assert len(records) == len(written) == 18
    assert records.annotation_ids.tolist() == [person["id"] for person in written]
    assert records.image_ids.tolist() == [person["image_id"] for person in written]
    x, y, width, height = written[4]["bbox"]
    assert records.boxes_xyxy[4] == pytest.approx([x, y, x + width, y + height], abs=1e-3)
    assert records.keypoints[4].flatten() == pytest.approx(written[4]["keypoints"], abs=1e-3)
    assert all(path.is_file() for path in records.image_paths)


def test_crowds_and_people_without_labels_are_left_out(drawn: Any, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["keypoints"] = [0] * 51
        del content["annotations"][2]["keypoints"]
        del content["annotations"][3]["iscrowd"]

    records = read_people([edited(drawn.annotations, tmp_path / "a.json", change)], drawn.images)
    assert records.annotation_ids.tolist() == list(range(4, 19))


def _no_images(content: dict[str, Any]) -> None:
    del content["images"]


def _strings(content: dict[str, Any]) -> None:
    content["images"][2]["id"] = "000003"


def _no_name(content: dict[str, Any]) -> None:
    del content["images"][2]["file_name"]


def _unknown_image(content: dict[str, Any]) -> None:
    content["annotations"][5]["image_id"] = 999


def _no_box(content: dict[str, Any]) -> None:
    del content["annotations"][5]["bbox"]


def _text_in_a_box(content: dict[str, Any]) -> None:
    content["annotations"][5]["bbox"] = ["1", 2, 3, 4]


def _list_in_a_box(content: dict[str, Any]) -> None:
    content["annotations"][5]["bbox"] = [[1], 2, 3, 4]


def _list_of_images(content: dict[str, Any]) -> None:
    content["annotations"][5]["image_id"] = [1]


def _text_as_keypoints(content: dict[str, Any]) -> None:
    content["annotations"][5]["keypoints"] = ["1", 1, 2] * 17


def _nothing_as_keypoints(content: dict[str, Any]) -> None:
    content["annotations"][5]["keypoints"] = [None, None, 2] * 17


def _numbers_as_people(content: dict[str, Any]) -> None:
    content["annotations"] = [1, 2]


def _few_keypoints(content: dict[str, Any]) -> None:
    content["annotations"][5]["keypoints"] = [1, 2, 2] * 14


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_no_images, "'images' and 'annotations'"),
        (_strings, "image id '000003' is not a whole number"),
        (_no_name, "image 3 has no 'file_name'"),
        (_unknown_image, "annotation 6 is of image 999"),
        (_no_box, "annotation 6 has no 'bbox'"),
        (_text_in_a_box, "annotation 6 has no 'bbox' of four numbers"),
        (_list_in_a_box, "annotation 6 has no 'bbox' of four numbers"),
        (_list_of_images, r"annotation 6 is of image \[1\]"),
        (_text_as_keypoints, "annotation 6 has 'keypoints' that are no numbers"),
        (_nothing_as_keypoints, "annotation 6 has 'keypoints' that are no numbers"),
        (_numbers_as_people, "the entries of 'annotations' must be objects"),
        (_few_keypoints, "annotation 6 has 42 keypoint numbers instead of 51"),
    ],
)
def test_faults_of_annotation_files_are_told(drawn: Any, tmp_path: Path, change: Any, told: str) -> None:
    path = edited(drawn.annotations, tmp_path / "faulty.json", change)
    with pytest.raises(InputError, match=told) as raised:
        read_people([path], drawn.images)
    assert str(path) in str(raised.value)


def test_files_that_are_no_annotations_are_told(drawn: Any, tmp_path: Path) -> None:
    for content in (b"\xff\xfe{", b"[1, 2]", b"{}", b""):
        path = tmp_path / "a.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json"):
            read_people([path], drawn.images)
    with pytest.raises(InputError, match=r"missing\.json"):
        read_people([tmp_path / "missing.json"], drawn.images)
    with pytest.raises(InputError, match=r"--data .*nowhere"):
        read_people([drawn.annotations], tmp_path / "nowhere")

    def nobody(content: dict[str, Any]) -> None:
        content["annotations"] = []

    with pytest.raises(TrainingError, match="no person with keypoints"):
        read_people([edited(drawn.annotations, tmp_path / "b.json", nobody)], drawn.images)


def test_cached_keypoints_lie_on_their_pixels(tmp_path: Path) -> None:
    """A white dot at a keypoint is found in the cached crop where the cache says that the keypoint is."""
    y, x = np.mgrid[:300, :260] + 0.5
    dot = (131.3, 164.6)
    light = (255 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / 50)).round().astype(np.uint8)
    cv2.imwrite(str(tmp_path / "dot.png"), np.repeat(light[..., None], 3, axis=2))
    keypoints = [0.0] * 51
    keypoints[:3] = [*dot, 2]
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 70, 120, 150], "keypoints": keypoints}
    content = {"images": [{"id": 1, "file_name": "dot.png"}], "annotations": [person]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    records = read_people([tmp_path / "a.json"], tmp_path)
    cache = build_cache(records, SIZE, Preprocessing(mean=(0, 0, 0)), tmp_path / "cache")
    assert cache.pixels.shape == (1, *cache_size(SIZE), 3) == (1, 96, 96, 3)
    seen = cache.pixels[0, ..., 0].astype(float)
    rows, columns = np.mgrid[:96, :96] + 0.5
    centre = np.array([(columns * seen).sum(), (rows * seen).sum()]) / seen.sum()
    assert centre == pytest.approx(cache.keypoints_xy[0, 0], abs=0.05)
    assert cache.visibility[0].tolist() == [2] + [0] * 16
    # The box of 120 x 150 is padded to 144 x 195, made square, and shown with its margin in 96 pixels.
    assert cache.keypoints_xy[0, 0] == pytest.approx((np.array(dot) - [120, 145]) * 96 / (195 * MARGIN) + 48, abs=1e-3)


def test_a_whole_cache_is_used_again(drawn: Any, tmp_path: Path) -> None:
    records = read_people([drawn.annotations], drawn.images)
    told: list[tuple[int, int]] = []
    first = build_cache(records, SIZE, Preprocessing(), tmp_path, progress=lambda *counts: told.append(counts))
    assert told[-1] == (18, 18)
    again = build_cache(records, SIZE, Preprocessing(), tmp_path, progress=lambda *_: pytest.fail("built again"))
    assert np.array_equal(first.pixels, again.pixels)
    build_cache(records, (64, 96), Preprocessing(), tmp_path)
    build_cache(records, SIZE, Preprocessing(mean=(0, 0, 0)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_image_stops_the_cache_and_is_named(draw_people: Any, tmp_path: Path) -> None:
    data = draw_people(tmp_path / "data", 6)
    (data.images / "003.png").write_bytes(b"no image at all")
    records = read_people([data.annotations], data.images)
    with pytest.raises(CpnposeError, match=r"003\.png.*people\.json"):
        build_cache(records, SIZE, Preprocessing(), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_image_is_named_before_any_work(draw_people: Any, tmp_path: Path) -> None:
    data = draw_people(tmp_path / "data", 6)
    (data.images / "004.png").unlink()
    records = read_people([data.annotations], data.images)
    with pytest.raises(InputError, match=r"004\.png: there is no such image, wanted by .*people\.json; 1 of 6"):
        build_cache(records, SIZE, Preprocessing(), tmp_path / "cache", progress=lambda *_: pytest.fail("began"))


def test_batches_keep_the_order_of_their_rows(drawn: Any, tmp_path: Path) -> None:
    cache = build_cache(read_people([drawn.annotations], drawn.images), SIZE, Preprocessing(), tmp_path)
    rows = np.array([7, 2, 17, 2])
    batch = batch_of(cache, rows, torch.device("cpu"))
    assert np.array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), cache.pixels[rows])
    assert np.array_equal(batch.keypoints_xy.numpy(), cache.keypoints_xy[rows])
    assert np.array_equal(batch.visibility.numpy(), cache.visibility[rows])


def test_an_epoch_holds_each_person_as_often_as_its_file_weighs() -> None:
    sources = np.array([0] * 40 + [1] * 20 + [2] * 10)
    order = epoch_order(sources, (1.0, 0.25, 2.5), seed=3, epoch=1)
    counts = np.bincount(order, minlength=70)
    assert (counts[:40] == 1).all()
    assert counts[40:60].sum() == 5
    assert counts[40:60].max() == 1
    assert counts[60:].sum() == 25
    assert set(counts[60:].tolist()) == {2, 3}
    assert len(epoch_order(sources, (0.0, 1.0, 0.0), 3, 1)) == 20


def test_epochs_differ_and_repeat_themselves() -> None:
    sources = np.zeros(50, np.int64)
    first = epoch_order(sources, (1.0,), seed=3, epoch=0)
    assert np.array_equal(first, epoch_order(sources, (1.0,), seed=3, epoch=0))
    assert not np.array_equal(first, epoch_order(sources, (1.0,), seed=3, epoch=1))
    assert not np.array_equal(first, epoch_order(sources, (1.0,), seed=4, epoch=0))


def test_processes_share_the_rows_of_a_step() -> None:
    order = np.arange(23)
    alone = list(steps(order, 6, 0, 1))
    parts = [list(steps(order, 3, rank, 2)) for rank in range(2)]
    assert len(alone) == len(parts[0]) == len(parts[1]) == 3
    for whole, first, second in zip(alone, *parts, strict=True):
        assert whole.tolist() == [*first.tolist(), *second.tolist()]


def test_a_cache_appears_whole_and_its_place_is_told_where_it_cannot(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = read_people([drawn.annotations], drawn.images)
    folder = tmp_path / "cache"

    def look(done: int, total: int) -> None:
        assert [path.suffixes[-2:] for path in folder.iterdir()] == [[".part", ".npy"]]

    build_cache(records, SIZE, Preprocessing(), folder, progress=look)
    assert [path.name.startswith("crops-") for path in folder.iterdir()] == [True]

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match=r"no space is left on the disk.* by --cache; .* needs 0\.0 GB"):
        build_cache(records, SIZE, Preprocessing(), tmp_path / "other", progress=lambda *_: pytest.fail("began"))
    assert list((tmp_path / "other").iterdir()) == []
