"""int8 weights: how near they are to those that they were made of, and what they cannot do."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cpnpose.cli.main import app
from cpnpose.errors import InputError, OptionError, WeightsError
from cpnpose.models.int8 import CONSTANTS, GRAPH, Int8Network, load_int8
from cpnpose.models.quantize import quantize
from cpnpose.models.weights import load_cpn, read_metadata, save_weights
from cpnpose.pipeline.calibrate import people_in
from cpnpose.pipeline.detect import WholeImageDetector
from cpnpose.pipeline.estimate import load_pose_network
from cpnpose.pose.types import Detections, Preprocessing

pytest.importorskip("nncf", reason="needs the extra 'quantize'")


def crops(count: int, seed: int = 0) -> torch.Tensor:
    """(count, 64, 64, 3) uint8: smooth random pictures."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([cv2.resize(image, (64, 64)) for image in coarse]))


@pytest.fixture(scope="module")
def int8_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "tiny-int8.safetensors"
    quantize(tiny_weights, crops(32).numpy(), path)
    return path


def test_the_heatmaps_are_those_of_the_float_network_up_to_rounding(tiny_weights: Path, int8_weights: Path) -> None:
    exact = load_pose_network(tiny_weights, device="cpu", precision="fp32")
    rounded = load_pose_network(int8_weights)
    assert isinstance(rounded.model, Int8Network)
    assert rounded.number_format == "int8"
    assert exact.number_format == "float32"
    for count in (1, 5):
        with torch.inference_mode():
            wanted, _ = exact.heatmaps(crops(count, seed=1))
            found, _ = rounded.heatmaps(crops(count, seed=1))
        assert found.shape == wanted.shape == (count, 17, 16, 16)
        error = (found - wanted).square().mean().sqrt() / (wanted - wanted.mean()).square().mean().sqrt()
        assert 0.001 < error < 0.12  # 0.07; of a network that was not rounded it would be 1e-6


def test_the_file_says_what_it_is_and_not_what_its_source_reached(tiny_weights: Path, int8_weights: Path) -> None:
    source, made = read_metadata(tiny_weights), read_metadata(int8_weights)
    assert (made.name, made.kind, made.input_size) == ("tiny-int8", "pose", source.input_size)
    assert made.preprocessing == source.preprocessing
    assert made.decoding == source.decoding
    assert made.metrics == {}
    assert "tiny (cpn-light) quantized on 32 people" in made.recipe
    assert int8_weights.stat().st_size < 0.5 * tiny_weights.stat().st_size
    with pytest.raises(WeightsError, match="cpn-int8"):
        load_cpn(int8_weights)  # nothing to train on or to quantize again


def test_several_threads_get_their_own_answers(int8_weights: Path) -> None:
    network = load_pose_network(int8_weights)
    inputs = [crops(3, seed=number) for number in range(8)]
    with torch.inference_mode():
        wanted = [network.heatmaps(pixels)[0] for pixels in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pixels: network.heatmaps(pixels)[0], inputs))
    for one, other in zip(wanted, found, strict=True):
        assert torch.equal(one, other)


def test_a_call_uses_the_cores_of_its_thread_of_those_that_the_process_may_use(
    int8_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with more cores, OpenVINO would split the few that are allowed among too many calls."""
    asked: list[dict[str, int]] = []

    def compiled(*args: Any, **kwargs: Any) -> None:
        asked.append(args[2])
        raise InterruptedError

    graph = load_int8(int8_weights).graph
    monkeypatch.setattr("cpnpose.processor.cpu_quota", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6, 7}, raising=False)
    monkeypatch.setattr(graph, "_core", SimpleNamespace(compile_model=compiled))
    for threads in (1, 2, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with pytest.raises(InterruptedError):
            graph(torch.zeros(1, 3, 64, 64))
    assert [(setting["INFERENCE_NUM_THREADS"], setting["NUM_STREAMS"]) for setting in asked] == [(4, 4), (4, 2), (4, 1)]


def test_what_int8_cannot_do_is_told(int8_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="is int8 and holds the whole network only"):
        load_pose_network(int8_weights, fast=True)
    with pytest.raises(OptionError, match="runs on the CPU"):
        load_pose_network(int8_weights, device=torch.device("meta"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"pip install 'cpnpose\[int8\]'"):
        load_pose_network(int8_weights)


def test_damaged_files_are_told(int8_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    metadata = read_metadata(int8_weights)
    save_weights(path, {GRAPH: torch.zeros(9, dtype=torch.uint8)}, metadata)
    with pytest.raises(WeightsError, match="damaged or holds no int8 network"):
        load_pose_network(path)
    save_weights(path, {name: torch.zeros(9, dtype=torch.uint8) for name in (GRAPH, CONSTANTS)}, metadata)
    with pytest.raises(WeightsError, match="OpenVINO cannot read it"):
        load_pose_network(path)


def test_people_of_ones_own_images_are_taken_until_there_are_enough(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((40, 40, 3), 40 * number, np.uint8))
    taken = people_in(paths, WholeImageDetector(), (64, 64), Preprocessing(), 3)
    assert taken.shape == (3, 64, 64, 3)
    assert len(np.unique(taken[:, 32, 32, 0])) == 3
    assert len(people_in(paths, WholeImageDetector(), (64, 64), Preprocessing(), 9)) == 5
    nobody = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    with pytest.raises(InputError, match="nobody was found in 5 images"):
        people_in(paths, lambda images, indices=None: [nobody] * len(images), (64, 64), Preprocessing(), 3)


def test_from_the_command_line(tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    (folder / "more").mkdir(parents=True)
    for number, pixels in enumerate(crops(4)):
        cv2.imwrite(str(folder / ("more" if number == 3 else "") / f"{number}.png"), pixels.numpy())
    out = tmp_path / "mine.safetensors"
    command = ["weights", "quantize", str(tiny_weights), str(folder), "--out", str(out), "--detector", "none"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "tiny-int8, int8" in result.stdout
    assert "from 4 people" in result.stdout
    twice = ["weights", "quantize", str(out), str(folder / "none"), "--out", str(tmp_path / "twice.safetensors")]
    assert "is int8 already (cpn-int8)" in CliRunner().invoke(app, twice).stderr  # before a look at the images
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0
    assert "--overwrite" in again.stderr
    poses = tmp_path / "poses"
    command = ["images", str(folder), "--recursive", "--json", "--out", str(poses)]
    result = CliRunner().invoke(app, [*command, "--weights", str(out), "--detector", "none"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "poses.json").read_text())
    assert len(record["frames"]) == 4
    assert record["model"]["precision"] == "int8"


def test_a_number_format_that_would_not_be_used_is_refused(int8_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), crops(1)[0].numpy())
    person = {"id": 1, "image_id": 1, "bbox": [5, 5, 50, 50], "area": 2500, "category_id": 1}
    truth = tmp_path / "truth.json"
    for keypoints, command in (
        ([], ["images", folder, "--out", tmp_path / "o.json", "--detector", "none"]),
        ([20, 20, 2] * 17, ["evaluate", "--annotations", truth, "--data", folder]),
        ([], ["train", "pseudo-label", "--boxes-annotations", truth, "--data", folder, "--out", tmp_path / "o.json"]),
    ):
        people = [person | ({"keypoints": keypoints} if keypoints else {})]
        truth.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.png"}], "annotations": people}))
        arguments = [*map(str, command), "--weights", str(int8_weights), "--precision", "bf16"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
        assert "error: --precision bf16 has no effect on the pose network, which is int8; leave it" in result.stderr
        assert not (tmp_path / "o.json").exists()


def test_a_number_format_for_the_detector_alone_is_told(int8_weights: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), crops(1)[0].numpy())
    told = "--precision fp32 has no effect on the pose network, which is int8"
    for progress, said in (
        (["--progress", "bar"], [f"cpnpose: {told}"]),
        (["--progress", "json"], [json.dumps({"event": "note", "input": None, "text": told})]),
        (["--quiet"], []),
    ):
        command = ["images", str(tmp_path / "1.png"), "--out", str(tmp_path / "o.json"), "--overwrite"]
        networks = ["--weights", str(int8_weights), "--device", "cpu", "--precision", "fp32"]
        result = CliRunner().invoke(app, [*command, *networks, *progress])
        assert result.exit_code == 0, result.output
        assert [line for line in result.stderr.splitlines() if "no effect" in line] == said
        model = json.loads((tmp_path / "o.json").read_text())["model"]
        assert (model["precision"], model["detector"]["precision"]) == ("int8", "float32")
