from __future__ import annotations

import os
from pathlib import Path

import pytest

from cpnpose.cli.output_checks import check_reports, refuse
from cpnpose.cli.outputs import Outputs, Switches, plan_images, plan_videos
from cpnpose.errors import OptionError, OutputError

NONE = Switches()
JSON = Switches(json=True)
ALL = Switches(json=True, jsonl=True, csv=True)


def names(outputs: Outputs) -> list[str]:
    return [path.as_posix() for path in outputs.paths]


@pytest.mark.parametrize(
    ("source", "out", "switches", "expected"),
    [
        ("a/in.mp4", None, NONE, ["a/in_pose.mp4"]),
        ("a/in.mkv", None, JSON, ["a/in_pose.json"]),
        ("in.mp4", "out.mp4", JSON, ["out.mp4", "out.json"]),
        ("in.mp4", "b/o.v2.mkv", ALL, ["b/o.v2.mkv", "b/o.v2.json", "b/o.v2.jsonl", "b/o.v2.csv"]),
        ("in.mp4", "out.jsonl", NONE, ["out.jsonl"]),
        ("in.mp4", "out.csv", JSON, ["out.json", "out.csv"]),
        ("in.mp4", "out.mp4", Switches(json=True, picture=False), ["out.json"]),
        ("in.mp4", "folder/", NONE, ["folder/in_pose.mp4"]),
        ("http://host/clips/walk.mp4?key=1", None, JSON, ["walk_pose.json"]),
        ("rtsp://host", None, NONE, ["host_pose.mp4"]),
        ("/dev/stdin", None, JSON, ["stdin_pose.json"]),
        ("/dev/fd/63", None, NONE, ["63_pose.mp4"]),
        ("in.mp4", "-", NONE, []),
    ],
)  # fmt: skip
def test_names_for_one_video(source: str, out: str | None, switches: Switches, expected: list[str]) -> None:
    (outputs,) = plan_videos([source], out, switches)
    assert names(outputs) == expected
    assert outputs.stdout == (out == "-")


def test_names_for_several_videos() -> None:
    planned = plan_videos(["a/x.mp4", "b/y.mov"], "results", JSON)
    expected = [["results/x_pose.mp4", "results/x_pose.json"], ["results/y_pose.mp4", "results/y_pose.json"]]
    assert list(map(names, planned)) == expected
    planned = plan_videos(["a/x.mp4", "a/x.mov"], None, NONE)
    assert list(map(names, planned)) == [["a/x_mp4_pose.mp4"], ["a/x_mov_pose.mp4"]]


@pytest.mark.parametrize("out", ["all.json", "all.MP4"])
def test_several_videos_do_not_go_into_one_file(tmp_path: Path, out: str) -> None:
    with pytest.raises(OutputError, match="Give a folder"):
        plan_videos(["a.mp4", "b.mp4"], str(tmp_path / out), NONE)
    assert names(plan_videos(["a.mp4", "b.mp4"], f"{out}/", NONE)[0]) == [f"{out}/a_pose.mp4"]


def test_names_for_images() -> None:
    assert names(plan_images(Path("p"), "dir_pose", None, NONE)) == ["p/dir_pose"]
    assert names(plan_images(Path("p"), "dir_pose", None, JSON)) == ["p/dir_pose.json"]
    assert names(plan_images(Path("p"), "dir_pose", "o.2024", JSON)) == ["o.2024", "o.2024.json"]
    assert names(plan_images(Path("p"), "dir_pose", "o.png", JSON)) == ["o.png", "o.json"]
    assert names(plan_images(Path("p"), "dir_pose", "o.json", NONE)) == ["o.json"]
    assert names(plan_images(Path("p"), "dir_pose", "o.png/", JSON)) == ["o.png", "o.png.json"]
    assert names(plan_images(Path("p"), "dir_pose", "o.csv/", NONE)) == ["o.csv"]
    assert plan_images(Path("p"), "dir_pose", "-", NONE).stdout
    here = Path.cwd()
    assert names(plan_images(Path("p"), "dir_pose", ".", JSON)) == [here.as_posix(), f"{here.as_posix()}.json"]
    assert names(plan_images(Path("p"), "dir_pose", "..", JSON))[1] == f"{here.parent.as_posix()}.json"
    with pytest.raises(OptionError, match="root of the drive; give a folder"):
        plan_images(Path("p"), "dir_pose", "/", JSON)


def test_options_that_do_not_go_together() -> None:
    for out, switches in (("-", JSON), (None, Switches(picture=False)), ("x.json", Switches(picture=True))):
        with pytest.raises(OptionError):
            plan_videos(["in.mp4"], out, switches)


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^a/x\.mp4 and b/x\.mp4 have the same name"):
        plan_videos(["y.mov", "a/x.mp4", "z/y.mp4", "b/x.mp4"], "results", NONE)


def test_refused_before_any_work(tmp_path: Path) -> None:
    there, source = tmp_path / "there.mp4", tmp_path / "in.mp4"
    there.touch()
    source.touch()
    with pytest.raises(OutputError, match="--overwrite"):
        refuse(Outputs(picture=there), [str(source)], overwrite=False)
    refuse(Outputs(picture=there), [str(source)], overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="never overwritten"):
            refuse(Outputs(picture=tmp_path / "sub" / ".." / "in.mp4"), [str(source)], overwrite=overwrite)
    with pytest.raises(OutputError, match="no folder"):
        refuse(Outputs(json=tmp_path / "nowhere" / "o.json"), [], overwrite=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_are_refused_before_any_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OutputError, match="device or a pipe"):
        refuse(Outputs(csv=tmp_path / "pipe.csv"), [], overwrite=True)
    with pytest.raises(OutputError, match="device or a pipe"):
        check_reports({"--report": tmp_path / "pipe.csv"}, [])


@pytest.mark.parametrize("name", ["there.jsonl", "there.partial.jsonl"])
def test_resuming_replaces_only_what_is_of_a_run_that_is_recorded(tmp_path: Path, name: str) -> None:
    outputs = Outputs(picture=tmp_path / "there.mp4", jsonl=tmp_path / "there.jsonl")
    (tmp_path / "there.mp4").touch()
    with pytest.raises(OutputError, match="--overwrite"):
        refuse(outputs, [], overwrite=False, resume=True)
    (tmp_path / name).touch()
    refuse(outputs, [], overwrite=False, resume=True)
