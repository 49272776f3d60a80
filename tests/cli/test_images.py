from __future__ import annotations

import json
import os
import signal
import sys
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
    assert f"cpnpose: {folder / 'bad.jpg'}: is no image that can be decoded" in done.stderr
    assert "1 of 4 images could not be read" in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("cpnpose: ")]
    for option in ("--quiet", "--progress=none"):
        done = cpnpose("images", folder, "--out", tmp_path / "o.json", "--overwrite", option)
        assert done.exit_code == 3
        assert done.stderr.splitlines() == told  # errors, and nothing else
    assert len(json.loads((tmp_path / "o.json").read_text())["frames"]) == 3


def test_where_nothing_could_be_read_no_result_is_named(cpnpose: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    done = cpnpose("images", tmp_path / "bad.jpg")
    assert done.exit_code == 3
    assert "bad_pose" not in done.stderr
    assert done.stderr.splitlines()[0].count("bad.jpg") == 1
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


def test_a_slash_makes_a_folder(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    done = cpnpose("images", folder / "b2.jpg", "--out", f"{tmp_path / 'drawn.png'}/")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "drawn.png").iterdir()] == ["b2.jpg"]


def test_an_image_of_another_ending_is_drawn_as_png(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jfif").write_bytes((folder / "b2.jpg").read_bytes())
    done = cpnpose("images", tmp_path / "photo.jfif")
    assert done.exit_code == 0, done.stderr
    assert cv2.imread(str(tmp_path / "photo_pose.png")).shape == (50, 30, 3)
    assert done.stderr.rstrip().endswith("photo_pose.png")


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


def test_an_empty_folder_is_as_good_as_none(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    for name in ("empty", "photos_pose", "empty.png"):
        (tmp_path / name).mkdir()
    for options in ((folder, "--out", tmp_path / "empty"), (folder,)):
        done = cpnpose("images", *options)
        assert done.exit_code == 0, done.stderr
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {"a.webp", "b2.jpg", "b10.png"}
    assert cpnpose("images", folder / "b2.jpg", "--out", tmp_path / "empty.png").exit_code == 0
    assert [path.name for path in (tmp_path / "empty.png").iterdir()] == ["b2.jpg"]


def test_several_images_do_not_go_into_one(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    for inputs in ((folder,), (folder / "b2.jpg", folder / "b10.png")):
        done = cpnpose("images", *inputs, "--out", drawn)
        assert done.exit_code == 2
        assert "give a folder" in done.stderr
        assert not drawn.exists()
    assert cpnpose("images", folder / "*.png", "--out", drawn).exit_code == 0
    assert drawn.is_file()
    assert cpnpose("images", folder, "--out", drawn, "--no-draw", "--json").exit_code == 0
    assert len(json.loads((tmp_path / "drawn.json").read_text())["frames"]) == 3


def test_an_image_that_is_named_in_two_ways_is_one(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    again = folder.parent / "elsewhere" / ".." / folder.name / "a.webp"
    (folder.parent / "elsewhere").mkdir()
    done = cpnpose("images", folder, again, "--out", tmp_path / "drawn", "--json")
    assert done.exit_code == 0, done.stderr
    assert "3 images in = 3 images out" in done.stderr


def test_two_images_of_one_result_are_refused_before_any_work(cpnpose: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "b10.png").rename(folder / "x.tga")
    (folder / "x.tga.png").write_bytes((folder / "x.tga").read_bytes())
    done = cpnpose("images", folder / "x.tga", folder / "x.tga.png", "--out", tmp_path / "drawn", "--overwrite")
    assert done.exit_code == 4
    assert "would both be drawn to" in done.stderr
    assert not (tmp_path / "drawn").exists()


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


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_names_the_files_that_are_there(
    cpnpose: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    from cpnpose.cli import images_run

    class Interrupted(images_run.DataSinks):
        def __enter__(self) -> Interrupted:
            if not after:
                os.kill(os.getpid(), signal.SIGINT)
            return self

        def write(self, *arguments: Any) -> None:
            super().write(*arguments)
            if self.frames_written == after:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(images_run, "DataSinks", Interrupted)
    results = tmp_path / "results"
    command = ("images", folder, "--out", results, "--json", "--jsonl", "--progress", "json")
    done = cpnpose(*command)
    assert done.exit_code == 130, done.stderr
    end = next(json.loads(line) for line in done.stderr.splitlines() if '"event": "end"' in line)
    there = {path.name for path in tmp_path.iterdir()} - {"photos"}
    assert {Path(name).name for name in end["results"]} == there
    assert there == ({"results", "results.json", "results.partial.jsonl"} if after else {"results.json"})
    assert "--resume" not in done.stderr
    monkeypatch.undo()
    (tmp_path / "results.json").unlink()
    again = cpnpose("images", folder, "--out", tmp_path / "results.jsonl")
    assert again.exit_code == (4 if after else 0), again.stderr
    assert "--resume" not in again.stderr
    assert ("--overwrite" in again.stderr) == bool(after)


def test_names_that_are_no_utf8(cpnpose: Run, folder: Path, tmp_path: Path, odd_name: Callable[[str], str]) -> None:
    odd = folder / odd_name(".png")
    odd.write_bytes((folder / "b10.png").read_bytes())
    (folder / odd_name("bad.png")).write_text("no image")
    results = tmp_path / "results"
    done = cpnpose("images", folder, "--out", results, "--json", "--jsonl", "--csv")
    assert done.exit_code == 3, done.stderr
    assert r"\xffbad.png: is no image" in done.stderr
    assert (results / odd.name).is_file()
    for name in ("results.json", "results.jsonl", "results.csv"):
        assert r"\xff.png" in (tmp_path / name).read_text(encoding="utf-8").replace(r"\\", "\\"), name
    assert r"\\xff.png" in cpnpose("images", folder, "--out", "-").stdout
    alone = cpnpose("images", odd, "--json", "--progress", "json")
    assert alone.exit_code == 0, alone.stderr
    record = folder / odd_name("_pose.json")
    assert json.loads(record.read_text(encoding="utf-8"))["source"]["file"] == r"\xff.png"
    assert json.loads(alone.stderr.splitlines()[-1])["results"] == [str(folder / r"\xff_pose.json")]
    assert cpnpose("convert", record, "--to", "alphapose", networks=False).exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--angles"], "add --json, --jsonl or --csv"),
        (["--json", "--draw-boxes"], "no images are drawn; name their folder"),
        (["--json", "--no-draw", "--draw-boxes"], "leave --no-draw out"),
        (["--json", "--nms", "0.5"], "--nms has no effect with --detector none"),
    ],
)
def test_options_without_effect_are_refused(cpnpose: Run, folder: Path, options: list[str], said: str) -> None:
    done = cpnpose("images", folder, *options)
    assert done.exit_code == 2
    assert said in done.stderr
