"""Peak memory of the commands on records, for a record and for one that is five times as long."""

from __future__ import annotations

import gc
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cpnpose.cli.main import build_app
from cpnpose.formats import Header, JsonlWriter
from cpnpose.pose.types import Frame, FrameResult, Poses

FPS = 25
SHORT, LONG = 40, 200
ROW_BYTES = 220
"""One person in one frame as plain numbers: 17 keypoints of three, box, scores."""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Records of two people who stand and tremble, by their number of frames."""
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    made = {}
    for count in (SHORT, LONG):
        made[count] = folder / f"frames{count}.jsonl"
        header = Header(
            kind="video",
            source="two.mp4",
            size=(360, 640),
            fps=Fraction(FPS),
            settings={},
            model={},
            extras=("track_ids",),
        )
        with JsonlWriter(made[count], header) as writer:
            for index in range(count):
                boxes = np.array([[50, 60, 140, 300], [400, 60, 490, 300]], np.float32)
                inside = np.linspace(0.1, 0.9, 17)[None, :, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
                poses = Poses(
                    keypoints_xy=(boxes[:, None, :2] + inside + rng.normal(0, 1, (2, 17, 2))).astype(np.float32),
                    keypoint_scores=np.full((2, 17), 1.2, np.float32),
                    scores=np.full(2, 1.1, np.float32),
                    boxes_xyxy=boxes,
                    box_scores=np.full(2, 0.95, np.float32),
                    track_ids=np.array([1, 2], np.int64),
                )
                frame = Frame(index, index, Fraction(1, FPS), index / FPS, np.zeros((0, 0, 3), np.uint8))
                writer.write(FrameResult(frame, poses))
    return made


def peak_bytes(*arguments: object) -> int:
    tracemalloc.start()
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.exit_code == 0, result.output
    return size


def growth_per_frame(records: dict[int, Path], folder: Path, *command: str, out: str) -> float:
    """Bytes by which the peak grows with each further frame, from the lower of two peaks for each length: the first
    runs load and warm up what stays."""
    sizes: dict[int, list[int]] = {SHORT: [], LONG: []}
    for number, count in enumerate((SHORT, LONG, SHORT, LONG)):
        target = folder / f"{number}_{out}"
        gc.collect()
        sizes[count].append(peak_bytes(command[0], records[count], *command[1:], "--out", target))
    return (min(sizes[LONG]) - min(sizes[SHORT])) / (LONG - SHORT)


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("track",), "t.jsonl"),
        (("smooth",), "s.jsonl"),
        (("smooth", "--fill", "0.5", "--repair-swaps", "--angles", "--person", "largest"), "s.csv"),
        *[(("convert", "--to", to), f"c.{ending}") for to, ending in (
            ("coco", "json"), ("mmpose", "json"), ("alphapose", "json"), ("sleap", "csv"), ("mot", "txt"),
            ("csv", "csv"), ("json", "json"), ("openpose", "folder"),
        )],
    ],
)  # fmt: skip
def test_memory_does_not_grow_with_the_record(
    records: dict[int, Path], tmp_path: Path, command: tuple[str, ...], out: str
) -> None:
    """A frame of two people that stayed would be two rows; less than one is the noise of caches."""
    assert growth_per_frame(records, tmp_path, *command, out=out) < ROW_BYTES


def test_what_writes_whole_columns_grows_by_little(records: dict[int, Path], tmp_path: Path) -> None:
    """deeplabcut needs all people before its first row, and keeps the frames' times alone. The others hold one person's
    track (trc, c3d), all tracks (videopose3d) or the page's text (report), and no more than a few times the numbers."""
    growth = {
        to: growth_per_frame(records, tmp_path, "convert", "--to", to, out=f"w.{ending}")
        for to, ending in (("deeplabcut", "csv"), ("trc", "trc"), ("c3d", "c3d"), ("videopose3d", "npz"))
    }
    growth["report"] = growth_per_frame(records, tmp_path, "report", out="r.html")
    print({name: round(size) for name, size in growth.items()})
    assert growth["deeplabcut"] < ROW_BYTES
    assert max(growth["trc"], growth["c3d"]) < 6 * ROW_BYTES
    assert max(growth["videopose3d"], growth["report"]) < 12 * 2 * ROW_BYTES
