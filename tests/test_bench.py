from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cpnpose.api import PoseEstimator
from cpnpose.bench import BenchOptions
from cpnpose.bench_agreement import agreement, compare
from cpnpose.bench_detector import _ultralytics_calls, noise_images
from cpnpose.bench_network import (
    decode_in_a_loop,
    decoding,
    likely_maps,
    matrix_units,
    network_forms,
    network_forms_apart,
)
from cpnpose.bench_pipeline import pipeline
from cpnpose.bench_timing import Timing, race
from cpnpose.errors import InputError, OptionError
from cpnpose.models.cpn import Architecture
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pose.decode_published import decode_published
from cpnpose.pose.keypoints import OKS_SIGMAS
from cpnpose.pose.types import Poses

CPU = torch.device("cpu")


def test_race_orders_by_time_and_counts_every_call() -> None:
    calls = {"short": 0, "long": 0}

    def sleep(name: str, seconds: float) -> None:
        calls[name] += 1
        time.sleep(seconds)

    times = race({"short": lambda: sleep("short", 0.002), "long": lambda: sleep("long", 0.02)}, rounds=3, limit_s=1)
    assert 0.002 <= times["short"].seconds < times["long"].seconds
    for name, timing in times.items():
        assert timing.calls + timing.disturbed == calls[name] - 1  # the first one warms up


def test_race_ends_at_its_limit() -> None:
    begin = time.perf_counter()
    timing = race({"one": lambda: time.sleep(0.05)}, rounds=1000, limit_s=0.2)["one"]
    assert time.perf_counter() - begin < 2
    assert timing.calls + timing.disturbed >= 1


def test_the_loop_decodes_as_the_published_decoding() -> None:
    maps = likely_maps(3, (64, 48))
    xy, scores = decode_published(maps)
    loop_xy, loop_scores = decode_in_a_loop(maps.numpy())
    np.testing.assert_allclose(loop_xy, xy.numpy(), atol=1e-3)
    np.testing.assert_allclose(loop_scores, scores.numpy(), atol=1e-5)


def test_network_forms_are_compared_with_the_plain_ones() -> None:
    rows = network_forms("cpn-light", (64, 64), CPU, torch.float32, batch=2, limit_s=0.1)
    assert rows[0]["times_faster_than_plain_float32"] == 1
    assert rows[1]["times_faster_than_plain_bfloat16"] == 1
    for row in rows:
        assert row["ms_per_crop"] * row["crops_per_s"] == pytest.approx(1000)
    names = [row["form"] for row in rows]
    inference = ["inference form float32", "inference form float32 --fast"]
    assert names[:4] == ["plain float32", "plain bfloat16 channels-last", *inference]
    assert names[4:] == (["int8 by OpenVINO"] if importlib.util.find_spec("nncf") else [])


@pytest.mark.parametrize(("architecture", "gflop"), [("cpn50", 11.9), ("cpn-light", 1.52)])
def test_arithmetic_is_counted(architecture: Architecture, gflop: float) -> None:
    """Against PyTorch's own counter on the plain operators: 11.90 and 1.52, a little of it for upsampling."""
    units = matrix_units(architecture, (256, 192), CPU, torch.float32, 0.1)
    assert units["gflop_per_crop"] == pytest.approx(gflop, rel=0.03)
    assert units["gflop_per_crop"] < gflop
    quarter = matrix_units(architecture, (128, 96), CPU, torch.float32, 0.1)
    assert quarter["gflop_per_crop"] == pytest.approx(units["gflop_per_crop"] / 4, rel=1e-6)
    assert units["tflops"] > 1e-3


def test_the_product_is_large_enough_to_show_what_a_cpu_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1024 rows it had a lower rate than the network itself."""

    def once(calls: dict[str, Callable[[], torch.Tensor]], **options: object) -> dict[str, Timing]:
        assert calls["product"]().shape == (2048, 2048)
        return {"product": Timing(1.0, 1, 0)}

    monkeypatch.setattr("cpnpose.bench_network.race", once)
    units = matrix_units("cpn-light", (64, 64), CPU, torch.float32, 0.1)
    assert units["tflops"] == 2 * 2048**3 / 1e12


def test_without_its_packages_int8_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    rows = network_forms("cpn-light", (64, 64), CPU, torch.float32, batch=2, limit_s=0.1)
    assert [row["form"] for row in rows][2:] == ["inference form float32", "inference form float32 --fast"]


def test_network_forms_are_compared_in_a_process_of_their_own() -> None:
    """Also where this process keeps its memory; an error there is this process's error."""
    rows = network_forms_apart("cpn-light", (64, 64), CPU, torch.float32, batch=2, limit_s=0.1)
    assert [row["form"] for row in rows][:2] == ["plain float32", "plain bfloat16 channels-last"]
    assert rows[0]["times_faster_than_plain_float32"] == 1
    assert rows[2]["ms_per_crop"] > 0
    with pytest.raises(RuntimeError, match=r"Invalid device|PyTorch|CUDA|NVIDIA"):
        network_forms_apart("cpn-light", (64, 64), torch.device("cuda:99"), torch.float32, batch=2, limit_s=0.1)


def test_decoding_reports_its_share() -> None:
    report = decoding(CPU, torch.float32, (16, 16), 10.0, 0.1)
    assert report["dark_share_of_network"] == pytest.approx(report["dark_ms"] / 1e4)
    for name in ("dark", "published"):
        times = report["published_loop_ms"] / report[f"{name}_ms"]
        assert report[f"{name}_times_faster_than_loop"] == pytest.approx(times)


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path / "in.mp4", count=10)


def test_pipeline_is_measured_by_stage_and_as_a_whole(video: Path, tiny_weights: Path) -> None:
    estimator = PoseEstimator(tiny_weights, detector="none", device="cpu", precision="fp32")
    report = pipeline(video, estimator, StreamOptions(detect_every=3), 8)
    assert report["frames"] == 8
    assert report["people"] == 8
    assert report["precision"] == "float32"
    stages = {row["stage"]: row for row in report["stages"]}
    assert set(stages) == {"decode", "to_rgb", "detect", "crop", "network", "track", "draw", "to_yuv", "encode"}
    assert all(
        stages[stage]["items"] == 8 for stage in ("decode", "to_rgb", "network", "track", "draw", "to_yuv", "encode")
    )
    assert 3 <= stages["detect"]["items"] <= 8
    assert sum(row["share"] for row in report["stages"]) == pytest.approx(1)
    assert all(0 <= stages[stage]["queue_fill"] <= 1 for stage in ("to_rgb", "network", "track", "draw", "to_yuv"))
    assert report["frames_per_s"] == pytest.approx(8 / report["seconds"])
    assert report["times_the_bound"] == pytest.approx(report["seconds"] / report["bound_seconds"])
    json.dumps(report)


def test_the_pipeline_tells_the_number_format_of_int8_weights(
    video: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = PoseEstimator(tiny_weights, detector="none", device="cpu")
    monkeypatch.setattr(type(estimator.network), "number_format", "int8")
    assert pipeline(video, estimator, StreamOptions(), 2)["precision"] == "int8"


def test_agreement_is_counted_person_by_person() -> None:
    def people(moved: float, count: int) -> Poses:
        corner = np.arange(count, dtype=np.float32)[:, None] * 200
        joints = np.tile(corner[:, None] + np.float32([50, 50]), (1, 17, 1)) + np.float32([moved, 0])
        boxes = np.concatenate([corner, corner, corner + 100, corner + 100], 1)
        scores = np.ones(count, np.float32)
        return Poses(joints, np.ones((count, 17), np.float32), scores, boxes, scores)

    report = compare([people(0, 2), people(0, 1), people(40, 1)], [people(0, 2), people(0, 2), people(0, 1)])
    assert report["frames"] == 3
    assert (report["people_of_the_full_mode"], report["people_of_this_mode"], report["people_of_both"]) == (5, 4, 4)
    expected = np.exp(-(40**2) / (2 * 0.5 * 100**2 * (2 * OKS_SIGMAS) ** 2)).mean()
    assert report["mean_oks"] == pytest.approx((3 + expected) / 4, rel=1e-5)
    assert report["share_above_0.75"] == pytest.approx(0.75)
    nobody = compare([Poses.empty()], [people(0, 1)])
    assert (nobody["people_of_both"], nobody["mean_oks"]) == (0, None)


def test_both_modes_see_the_same_frames(video: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpnpose.bench_agreement._SEEN", 0.0)  # random weights see no joint
    estimator = PoseEstimator(tiny_weights, detector="none", device="cpu", precision="fp32")
    same = agreement(video, StreamOptions(), estimator, estimator, 4)
    assert same["frames"] == same["people_of_both"] == same["people_of_the_full_mode"] == 4
    assert same["mean_oks"] == pytest.approx(1)


def test_a_missing_video_is_told(tmp_path: Path, tiny_weights: Path) -> None:
    estimator = PoseEstimator(tiny_weights, detector="none", device="cpu")
    with pytest.raises(InputError):
        pipeline(tmp_path / "none.mp4", estimator, StreamOptions(), 8)


@pytest.mark.parametrize(
    "wrong", [{"architecture": "resnet"}, {"input_size": (100, 64)}, {"frames": 0}, {"batch": 0}, {"limit_s": 0}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        BenchOptions(**wrong)  # type: ignore[arg-type]


def test_what_other_packages_say_does_not_get_into_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ultralytics.py").write_text(
        "print('new settings file')\n"
        "class YOLO:\n"
        "    def __init__(self, name, verbose): print('built', name)\n"
        "    def predict(self, image, **options): self.seen = image.shape\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ultralytics", raising=False)
    calls = _ultralytics_calls(noise_images(1, (8, 8)), CPU)
    assert list(calls) == ["ultralytics yolov8n-pose", "ultralytics yolov8m-pose"]
    for call in calls.values():
        call()
    said = capsys.readouterr()
    assert said.out == ""
    assert "new settings file" in said.err
