from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of different sizes and kinds, one of them in a folder below, and a file that is none."""
    path = tmp_path / "photos"
    (path / "below").mkdir(parents=True)
    random = np.random.default_rng(3)
    for name, size in (("b10.png", (40, 60)), ("b2.jpg", (50, 30)), ("a.webp", (64, 64)), ("below/c.bmp", (20, 90))):
        cv2.imwrite(str(path / name), random.integers(0, 255, (*size, 3), np.uint8))
    return path


def test_folder(cpnpose: Run, folder: Path) -> None:
    done = cpnpose("images", folder)
    assert done.exit_code == 0, done.stderr
    results = folder.with_name("photos_pose")
    assert {path.name for path in results.iterdir()} == {"a.webp", "b2.jpg", "b10.png"}
    assert cv2.imread(str(results / "b10.png")).shape == (40, 60, 3)
    done = cpnpose("images", folder, "--json", "--recursive")
    assert done.exit_code == 0, done.stderr
    document = json.loads(folder.with_name("photos_pose.json").read_text())
    assert [frame["file"] for frame in document["frames"]] == ["a.webp", "b2.jpg", "b10.png", "below/c.bmp"]
    assert [frame["size"] for frame in document["frames"]] == [[64, 64], [50, 30], [40, 60], [20, 90]]
    assert [frame["people"][0]["box"] for frame in document["frames"]][2] == [0, 0, 60, 40]
    assert document["frames"][0]["people"][0]["track_id"] is None


def test_unreadable_files_are_told_and_skipped(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.jpg").write_text("no image")
    done = cpnpose("images", folder, "--out", tmp_path / "o.json")
    assert done.exit_code == 3
    assert "bad.jpg" in done.stderr
    assert "1 of 4 images could not be read" in done.stderr
    assert len(json.loads((tmp_path / "o.json").read_text())["frames"]) == 3


def test_where_nothing_could_be_read_no_result_is_named(cpnpose: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    done = cpnpose("images", tmp_path / "bad.jpg")
    assert done.exit_code == 3
    assert "bad_pose" not in done.stderr
    assert "the others" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jpg"]


def test_a_single_file_and_a_pattern(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    assert cpnpose("images", folder / "b2.jpg", "--json", "--out", tmp_path / "drawn.png").exit_code == 0
    assert cv2.imread(str(tmp_path / "drawn.png")).shape == (50, 30, 3)
    assert json.loads((tmp_path / "drawn.json").read_text())["frames"][0]["file"] == "b2.jpg"
    assert cpnpose("images", folder / "b2.jpg").exit_code == 0
    assert (folder / "b2_pose.jpg").is_file()
    done = cpnpose("images", folder / "*.png", "--out", "-")
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()[1:]] == ["b10.png"]


def test_boxes_by_file_name(cpnpose: Run, folder: Path, tmp_path: Path, tiny_weights: Path) -> None:
    boxes = [
        {"image_id": "b2.jpg", "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.5},
        {"image_id": "b10", "category_id": 1, "bbox": [3, 4, 10, 20], "score": 0.25},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", tmp_path / "boxes.json", "--weights", tiny_weights, "--device", "cpu")
    assert cpnpose("images", folder, "--out", tmp_path / "o.json", *options, networks=False).exit_code == 0
    frames = json.loads((tmp_path / "o.json").read_text())["frames"]
    found = [[person["box"] for person in frame["people"]] for frame in frames]
    assert found == [[], [[1, 2, 11, 22]], [[3, 4, 13, 24]]]


def test_existing_results_are_kept(cpnpose: Run, folder: Path) -> None:
    assert cpnpose("images", folder).exit_code == 0
    done = cpnpose("images", folder)
    assert done.exit_code == 4
    assert "photos_pose" in done.stderr
    assert cpnpose("images", folder, "--overwrite").exit_code == 0


def test_nothing_to_do(cpnpose: Run, tmp_path: Path) -> None:
    done = cpnpose("images", tmp_path, "--json")
    assert done.exit_code == 3
    assert "no image" in done.stderr


def test_pictures_that_are_read_are_never_overwritten(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = cpnpose("images", folder, "--out", folder, "--overwrite")
    assert result.exit_code != 0
    assert "never overwritten" in result.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_pictures_named_from_elsewhere_stay_in_the_folder_of_results(
    cpnpose: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that goes up, and one from the root beside one that is not."""
    inner = tmp_path / "inner"
    inner.mkdir()
    first = next(path for path in sorted(folder.iterdir()) if path.suffix == ".png")
    for place in (tmp_path / "up.png", inner / "here.png"):
        place.write_bytes(first.read_bytes())
    before = (tmp_path / "up.png").read_bytes()
    monkeypatch.chdir(inner)
    for up in ("../up.png", str(tmp_path / "up.png")):
        result = cpnpose("images", up, "here.png", "--out", tmp_path / "results", "--overwrite")
        assert result.exit_code == 0, result.stderr
        assert {path.name for path in (tmp_path / "results").rglob("*.png")} == {"up.png", "here.png"}
    assert (tmp_path / "up.png").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--angles"], "add --json, --jsonl or --csv"),
        (["--json", "--draw-boxes"], "no images are drawn"),
        (["--json", "--nms", "0.5"], "--nms has no effect with --detector none"),
    ],
)
def test_options_without_effect_are_refused(cpnpose: Run, folder: Path, options: list[str], said: str) -> None:
    done = cpnpose("images", folder, *options)
    assert done.exit_code == 2
    assert said in done.stderr
